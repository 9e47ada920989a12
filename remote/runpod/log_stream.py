"""A pod's log as RunPod streams it (server-sent events): a snapshot, or followed for ever through every break.

The stream never ends by itself and has no mark where the past ends; a cursor is an opaque id, moved on only after the
line was handed over. Also here: the fingerprint of the pod's SSH key, which its image prints at start.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx

from remote.errors import ProviderDown, ProviderError, RateLimited
from remote.provider import LogLine
from remote.runpod.http import Api, refusal
from remote.ssh.link import pause

_QUIET = 0.75            # seconds without a line that end a snapshot
_LONGEST_SNAPSHOT = 20.0
_IDLE = 60.0             # seconds of silence after which the stream is opened again
_LONGEST_FRAME = 4 << 20
_REMEMBERED = 4096       # ids, against lines that are sent twice


class SseParser:
    """Bytes in any pieces to (id, data) of whole frames. Frames beyond 4 MiB are dropped."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._id = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            whole, self._held = bytes(self._held).rstrip(b"\r"), bytearray()
            if whole:
                self._take(whole.decode("utf-8", "replace"))
                continue
            if self._data and self._size <= _LONGEST_FRAME:
                yield self._id, "\n".join(self._data)
            self._data, self._size = [], 0
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        """Keep a torn line, but no more of it than shows that it is too long."""
        self._held += piece[: max(_LONGEST_FRAME + 16 - len(self._held), 0)]

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "data":
            self._size += len(value)
            if self._size <= _LONGEST_FRAME:
                self._data.append(value)


def snapshot(api: Api, pod_id: str, source: str, tail: int) -> list[LogLine]:
    """What the log holds now: read until it is quiet for a moment. Raises ProviderError."""
    lines: list[LogLine] = []
    if tail <= 0:
        return lines
    with _Stream(api, pod_id, source, tail, "") as stream:
        deadline = time.monotonic() + _LONGEST_SNAPSHOT
        while len(lines) < tail and time.monotonic() < deadline:
            found = stream.next(_QUIET if stream.opened else _LONGEST_SNAPSHOT)
            if found is None:
                break
            lines.append(found)
    return lines


def follow(api: Api, pod_id: str, stop: threading.Event, source: str, tail: int, cursor: str) -> Iterator[LogLine]:
    """Every line once, until `stop`. Raises what waiting does not cure."""
    seen: deque[str] = deque(maxlen=_REMEMBERED)
    tries = 0
    while not stop.is_set():
        try:
            for line in _until_it_breaks(_Stream(api, pod_id, source, tail, cursor), stop):
                tries = 0
                if line.cursor and line.cursor in seen:
                    continue
                yield line
                seen.append(line.cursor)
                cursor = line.cursor or cursor
        except RateLimited as error:
            stop.wait(error.wait_s)
        except ProviderDown:
            stop.wait(pause(tries))
        tries += 1


def _until_it_breaks(stream: _Stream, stop: threading.Event) -> Iterator[LogLine]:
    with stream:
        heard = time.monotonic()
        while not stop.is_set() and time.monotonic() - heard < _IDLE:
            line = stream.next(0.2)
            if line is not None:
                heard = time.monotonic()
                yield line
            elif stream.ended:
                return


class _Stream:
    """One connection; a thread reads it, so that whoever waits for a line can leave at once."""

    def __init__(self, api: Api, pod_id: str, source: str, tail: int, cursor: str) -> None:
        self._api, self._pod_id = api, pod_id
        self._query: dict[str, Any] = {"tail": min(max(tail, 0), 5000), **({"source": source} if source else {})}
        self._headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
        self._lines: queue.Queue[LogLine | ProviderError | None] = queue.Queue(maxsize=10_000)
        self._left = threading.Event()
        self._socket: socket.socket | None = None
        self.opened = self.ended = False

    def __enter__(self) -> _Stream:
        threading.Thread(target=self._read, name="pod-log", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._socket is not None:  # wakes the thread, which gives the connection back
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def next(self, wait: float) -> LogLine | None:
        """The next line, or None when none came in time or the stream has ended."""
        if self.ended:
            return None
        try:
            found = self._lines.get(timeout=wait)
        except queue.Empty:
            return None
        if isinstance(found, ProviderError):
            self.ended = True
            raise found
        self.ended = found is None
        return found

    def _read(self) -> None:
        timeout = httpx.Timeout(30.0, connect=10.0, read=_IDLE)
        end: ProviderError | None = None
        try:
            with self._api.client.stream("GET", f"/pods/{self._pod_id}/logs", params=self._query,
                                         headers=self._headers, timeout=timeout) as reply:
                if reply.status_code != 200:
                    reply.read()
                    raise refusal(reply)
                self._socket = reply.extensions["network_stream"].get_extra_info("socket")
                self.opened = True
                parser = SseParser()
                for data in reply.iter_raw():
                    for frame in parser.feed(data):
                        self._lines.put(log_line(*frame), timeout=_IDLE)
                    if self._left.is_set():
                        break
        except ProviderError as error:
            end = error
        except queue.Full:
            return
        except (httpx.HTTPError, RuntimeError) as error:
            end = None if self.opened else ProviderDown(f"RunPod's log does not answer: {type(error).__name__}")
        with suppress(queue.Full):
            self._lines.put(end, timeout=_IDLE if not self._left.is_set() else 0.1)


def log_line(cursor: str, data: str) -> LogLine:
    """What a frame says; a frame that is no JSON is a line by itself."""
    try:
        found = json.loads(data)
        return LogLine(str(found.get("source", "")), str(found["line"]), str(found.get("ts", "")), cursor)
    except (ValueError, KeyError, TypeError, AttributeError):
        return LogLine("", data, "", cursor)


def host_fingerprint(lines: Sequence[LogLine]) -> str:
    """The `SHA256:...` of the ED25519 host key that the container printed last; "" when it printed none."""
    found, heading = "", False
    for line in lines:
        value = re.search(r"SHA256:[A-Za-z0-9+/]{43}", line.text)
        if value and ("ED25519" in line.text.upper() or heading):
            found = value[0]
        heading = "ED25519" in line.text.upper() and value is None
    return found

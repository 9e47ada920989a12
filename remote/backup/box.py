"""Asks a machine about checkpoint files: in this process when it is this one, by our script when it is another.

The far side gets paths and signed URLs, on stdin, and nothing else; how far it is comes back through a small file that
is looked at once a second. What the answers mean is the business of whoever asks.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote.backup import box_files
from remote.errors import NoSuchFile, RemoteError, RunnerFailed
from remote.host import Host
from remote.local import LocalHost

SCRIPT = Path(box_files.__file__)
OnBytes = Callable[[int], None]

_ASK_S = 120.0        # a listing
_WORK_S = 12 * 3600.0  # hashing or sending one file; the box itself notices a stalled connection
_LOOK_S = 1.0


class Box:
    """One machine as seen by safekeeping. Safe to use from several threads. `stop` ends what is under way."""

    def __init__(self, host: Host, stop: threading.Event | None = None, scratch: str | None = None) -> None:
        self.host, self.stop, self._scratch = host, stop or threading.Event(), scratch
        self.here = isinstance(host, LocalHost)

    def inventory(self, base: str) -> dict[str, Any]:
        """`box_files.inventory`. Raises NoSuchFile when not even the folder around `base` is there."""
        if self.here:
            try:
                found = box_files.inventory(Path(base).expanduser())
            except OSError as error:
                raise RemoteError(f"{error.filename or base}: {error.strerror or error}") from error
        else:
            found = self._script(["inventory", base], b"", _ASK_S)
        if not found["exists"]:
            raise NoSuchFile(f"{base} on {self.host.name}: there is no such folder")
        return found

    def examine(self, path: str, on_bytes: OnBytes) -> dict[str, Any]:
        """Stat, sha256 and damage of a file: `box_files.examine`."""
        if self.here:
            return self._stoppable(lambda tick: box_files.examine(Path(path), tick), on_bytes)
        return self._script(["examine", path], b"", _WORK_S)

    def send(self, request: Mapping[str, Any], on_bytes: OnBytes) -> dict[str, Any]:
        return self._transfer("send", request, on_bytes)

    def fetch(self, request: Mapping[str, Any], on_bytes: OnBytes) -> dict[str, Any]:
        return self._transfer("fetch", request, on_bytes)

    def _transfer(self, verb: str, request: Mapping[str, Any], on_bytes: OnBytes) -> dict[str, Any]:
        if self.here:
            work = box_files.send if verb == "send" else box_files.fetch
            return self._stoppable(lambda tick: work(dict(request), tick), on_bytes)
        note = f"{self._scratch}/transfer-{secrets.token_hex(6)}" if self._scratch else None
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(note, on_bytes, ended), daemon=True)
        watcher.start()
        try:
            body = json.dumps({**request, "note": note}).encode()
            return self._script([verb], body, _WORK_S)
        finally:
            ended.set()
            watcher.join(timeout=10)
            self._forget(note)

    def _stoppable(self, work: Callable[[OnBytes], dict[str, Any]], on_bytes: OnBytes) -> dict[str, Any]:
        def tick(done: int) -> None:
            if self.stop.is_set():
                raise box_files.Stopped
            on_bytes(done)

        try:
            return work(tick)
        except box_files.Stopped:
            return {"ok": False, "status": 0, "reason": "stopped", "stopped": True}

    def _watch(self, note: str | None, on_bytes: OnBytes, ended: threading.Event) -> None:
        """Pass on the far side's progress, and our wish to stop."""
        told = False
        while note and not ended.wait(_LOOK_S):
            with suppress(RemoteError):  # the work itself says whether the machine is gone
                if self.stop.is_set() and not told:
                    self.host.run(["touch", f"{note}.stop"])
                    told = True
                found = self.host.stat(note)
                if found is not None:
                    lines = self.host.read(note, max(found.size - 64, 0)).split()
                    if lines and lines[-1].isdigit():
                        on_bytes(int(lines[-1]))

    def _forget(self, note: str | None) -> None:
        if note:
            with suppress(RemoteError, NoSuchFile):
                self.host.run(["rm", "-f", note, f"{note}.stop"])

    def _script(self, argv: list[str], stdin: bytes, timeout: float) -> dict[str, Any]:
        done = self.host.run_script(SCRIPT, argv, stdin=stdin, timeout=timeout)
        try:
            reply = json.loads(done.out)
        except ValueError:
            reply = None
        if done.rc != 0 or not isinstance(reply, dict):
            words = done.err.decode(errors="replace").strip().splitlines()
            last = words[-1] if words else "no reply"
            raise RunnerFailed(f"{argv[0]} on {self.host.name}: exit code {done.rc}: {last}")
        return reply

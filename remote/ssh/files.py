"""Asking the file server on another machine: many threads, one process there, answers in the order of the questions.

The server's source is `remote.ssh.file_server`; it is sent along each time, so nothing has to be installed there.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote.errors import CommandTimeout, HostUnreachable, NoSuchFile, RemoteError, RunnerFailed
from remote.ssh.session import Session

SOURCE = Path(__file__).with_name("file_server.py")
_LAST_WORDS = 2.0  # seconds for a command that ended to say why
_PATIENCE = 60.0   # seconds for one answer; a dead connection is noticed much earlier


def start_server(start: Callable[[Sequence[str]], Session], python: Sequence[str], order: Mapping[str, Any]) -> Session:
    """A file server that has been told its order."""
    source = SOURCE.read_bytes()
    program = f"import sys; exec(compile(sys.stdin.buffer.read({len(source)}), 'file_server', 'exec'))"
    session = start([*python, "-I", "-S", "-c", program])
    try:
        session.send(source + json.dumps(order).encode() + b"\n")
    except OSError:
        raise _no_python(session) from None
    return session


def _no_python(session: Session) -> RunnerFailed:
    with suppress(CommandTimeout):
        session.code(time.monotonic() + _LAST_WORDS)
    words = session.errors().splitlines()
    return RunnerFailed(f"{session.name} cannot look at files: {words[-1] if words else 'no reply'} "
                        "(Python 3.9 or newer is needed there)")


def head_line(session: Session, path: str) -> dict[str, Any]:
    """The JSON line that comes next. Raises NoSuchFile and OSError when that is what it says."""
    return checked({"path": path, **_json_line(session)}, session.name)


def _json_line(session: Session) -> dict[str, Any]:
    """Raises RunnerFailed with what Python said instead."""
    line = session.line()
    if not line:
        raise _no_python(session)
    return json.loads(line)


def checked(words: dict[str, Any], name: str) -> dict[str, Any]:
    """Raises NoSuchFile or OSError when the answer says so."""
    if words.get("missing"):
        raise NoSuchFile(str(words.get("path") or name))
    if "errno" in words:
        raise OSError(words["errno"], f"{words['error']} (on {name})")
    return words


class FileServer:
    """One server and those who ask it. `error` says why once it or the connection is gone."""

    def __init__(self, session: Session, python: tuple[str, ...]) -> None:
        self.python = python
        self.error: RemoteError | None = None
        self._session = session
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._waiting: dict[int, _Answer] = {}
        threading.Thread(target=self._listen, name="ssh-files", daemon=True).start()

    def ask(self, op: str, words: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """(bytes, words) of the answer. Raises NoSuchFile, OSError, HostUnreachable."""
        answer = _Answer()
        with self._guard:
            if self.error is not None:
                raise self.error
            number = next(self._numbers)
            self._waiting[number] = answer
            try:
                self._session.send(json.dumps({"id": number, "op": op, **words}).encode() + b"\n")
            except OSError as error:
                self.error = HostUnreachable(f"the file server on {self._session.name} is gone: {error}")
                raise self.error from None
        if not answer.done.wait(_PATIENCE):
            raise HostUnreachable(f"{self._session.name} does not answer a question about a file")
        if answer.error is not None:
            raise answer.error
        return answer.data, checked({**words, **answer.words}, self._session.name)

    def _listen(self) -> None:
        error: RemoteError
        try:
            while True:
                words = _json_line(self._session)
                data = self._session.exactly(words["bytes"])
                self._hand_over(words, data)
        except RemoteError as found:
            error = found
        except (ValueError, OSError) as found:
            error = HostUnreachable(f"the file server on {self._session.name} is gone: {found}")
        with self._guard:
            self.error = error
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.error = error
            answer.done.set()

    def _hand_over(self, words: dict[str, Any], data: bytes) -> None:
        answer = self._waiting.pop(words["id"])
        answer.words, answer.data = words, data
        answer.done.set()


class _Answer:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.words: dict[str, Any] = {}
        self.data = b""
        self.error: RemoteError | None = None

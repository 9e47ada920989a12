"""The screen's end of `python -m engine chat --json`: starts the process, sends operations, hands every line on.

Two daemon threads read, so that a process here and one behind an SSH connection are the same; what they read is handed
over in the event loop. Ending it kills and waits for nobody. It understands nothing of what is said.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from console.chat.launch import ChatProcess, Launch, launch_here
from console.text import clean_line
from remote.errors import RemoteError

_LONGEST_LINE = 1 << 22
_STDERR_LINES = 20
_LAST_WORDS_S = 0.3


class ChatClient:
    """One worker process at a time. `say` gets every protocol line, `died` the end of stderr when it ends unasked."""

    def __init__(self, say: Callable[[Mapping[str, Any]], object], died: Callable[[str], object],
                 launch: Launch = launch_here) -> None:
        self._say, self._died, self._launch = say, died, launch
        self._process: ChatProcess | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start the worker if it is not there. Raises OSError or RemoteError."""
        if self._process is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._stderr.clear()
        process = self._process = await asyncio.to_thread(self._launch)
        words = threading.Thread(target=self._keep_stderr, args=(process,), daemon=True, name="chat words")
        words.start()
        threading.Thread(target=self._listen, args=(process, words), daemon=True, name="chat").start()

    def send(self, operation: Mapping[str, Any]) -> bool:
        """Hand one operation over; False when there is no worker to take it."""
        if self._process is None:
            return False
        try:
            self._process.stdin.write(json.dumps(operation).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _listen(self, process: ChatProcess, words: threading.Thread) -> None:
        """In a thread of its own: until the process closes its stdout."""
        with suppress(OSError, ValueError), process.stdout:
            while line := process.stdout.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):  # longer than any line of the protocol: this is not our worker
                    break
                event = _parse(line)
                if event is not None:
                    self._in_loop(self._hear, process, event)
        code = None
        with suppress(RemoteError, subprocess.TimeoutExpired):  # else nobody knows how it ended
            code = process.wait(_LAST_WORDS_S)
        process.close()
        words.join(_LAST_WORDS_S)
        self._in_loop(self._ended, process, code)

    def _in_loop(self, call: Callable[..., object], *values: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: the app is gone and nobody listens
            self._loop.call_soon_threadsafe(call, *values)

    def _hear(self, process: ChatProcess, event: Mapping[str, Any]) -> None:
        if self._process is process:
            self._say(event)

    def _ended(self, process: ChatProcess, code: int | None) -> None:
        if self._process is process:
            self._process = None
            self._died("\n".join(self._stderr) or _ending(code))

    def _keep_stderr(self, process: ChatProcess) -> None:
        with suppress(OSError, ValueError), process.stderr:
            while line := process.stderr.readline(1 << 16):
                self._stderr.append(clean_line(line.decode("utf-8", "replace"), 500))

    async def kill(self) -> None:
        """End the worker at once, without a word; safe to call when there is none."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.close)


def _ending(code: int | None) -> str:
    """How a process that said nothing ended."""
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")
    return "the connection to it ended" if code is None else f"exit code {code}, without a word"


def _parse(line: bytes) -> Mapping[str, Any] | None:
    """One protocol line, or None for anything else on stdout."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None

"""The other end of `python -m engine chat --json`: starts the process, sends operations, hands every line on.

An asyncio subprocess, never a thread: quitting kills it and does not wait. It understands nothing of what is said.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from console.text import clean_line

_LONGEST_LINE = 1 << 22
_STDERR_LINES = 20
_LAST_WORDS_S = 0.3


def worker_argv() -> list[str]:
    """The command that serves a model on this machine."""
    return [sys.executable, "-m", "engine", "chat", "--json"]


class ChatClient:
    """One worker process at a time. `say` gets every protocol line, `died` the end of stderr when it ends unasked."""

    def __init__(self, say: Callable[[Mapping[str, Any]], object], died: Callable[[str], object],
                 argv: Sequence[str] | None = None) -> None:
        self._say, self._died = say, died
        self._argv = list(argv or worker_argv())
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the worker if it is not there. Raises OSError."""
        if self.alive:
            return
        pipe = asyncio.subprocess.PIPE
        self._stderr.clear()
        self._process = await asyncio.create_subprocess_exec(*self._argv, stdin=pipe, stdout=pipe, stderr=pipe,
                                                             limit=_LONGEST_LINE)
        listen = asyncio.create_task(self._listen(self._process))
        self._tasks = [listen, asyncio.create_task(self._keep_stderr(self._process))]

    def send(self, operation: Mapping[str, Any]) -> bool:
        """Queue one operation; False when there is no worker to take it."""
        if not self.alive or self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(json.dumps(operation).encode() + b"\n")
        except (ConnectionError, RuntimeError):
            return False
        return True

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                event = _parse(line)
                if event is not None:
                    self._say(event)
        except ValueError:  # a line longer than any of the protocol: this is not our worker
            with suppress(ProcessLookupError):
                process.kill()
        code = await process.wait()
        if self._process is process:
            self._process = None
            await asyncio.wait(self._tasks[1:], timeout=_LAST_WORDS_S)
            self._died("\n".join(self._stderr) or f"the process ended with code {code}")

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        with suppress(ValueError):
            while line := await process.stderr.readline():
                self._stderr.append(clean_line(line.decode("utf-8", "replace"), 500))

    async def kill(self) -> None:
        """End the worker at once, without a word; safe to call when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)


def _parse(line: bytes) -> Mapping[str, Any] | None:
    """One protocol line, or None for anything else on stdout."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None

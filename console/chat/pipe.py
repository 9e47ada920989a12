"""The chat process as a plain pipe, for the command line: send one operation, read events until it is done.

The screen has its own end of the same protocol (`console.chat.client`).
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from console.chat.launch import Launch, launch_here
from console.errors import ConsoleError
from remote.errors import RemoteError

_LAST_WORDS, _PATIENCE_S = 20, 2.0


class ChatPipe:
    """`python -m engine chat --json`, started on entry; it ends with its stdin, which `with` closes."""

    def __init__(self, launch: Launch = launch_here) -> None:
        self._process = launch()
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._listener = threading.Thread(target=self._keep_words, daemon=True)
        self._listener.start()

    def __enter__(self) -> ChatPipe:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the pipe; a process that does not take the hint is killed."""
        with suppress(OSError):
            self._process.stdin.close()
        if not exception[0]:
            with suppress(subprocess.TimeoutExpired, RemoteError):
                self._process.wait(_PATIENCE_S)
        self._process.close()
        with suppress(OSError):
            self._process.stdout.close()

    def _keep_words(self) -> None:
        with suppress(OSError, ValueError), self._process.stderr:
            for raw in self._process.stderr:
                self._words.append(raw.decode("utf-8", "replace").strip())

    def send(self, **operation: Any) -> None:
        """Hand one operation over. Raises ConsoleError when nobody is there to take it."""
        try:
            self._process.stdin.write(json.dumps(operation).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def events(self) -> Iterator[dict[str, Any]]:
        """What the process says. Raises ConsoleError when it ends."""
        for raw in self._process.stdout:
            try:
                event = json.loads(raw)
            except ValueError:  # what a login shell over there says is not for us
                continue
            if isinstance(event, dict):
                yield event
        raise self._ended()

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The next event of this kind. Raises ConsoleError when an error comes instead."""
        for event in self.events():
            if event.get("event") == "error":
                raise ConsoleError(str(event.get("message") or "the chat process failed"), str(event.get("next") or ""))
            if event.get("event") == kind:
                return event
        raise AssertionError("events() ends only by raising")

    def _ended(self) -> ConsoleError:
        try:
            code: object = self._process.wait(_PATIENCE_S)
        except (subprocess.TimeoutExpired, RemoteError):
            code = "unknown"
        self._listener.join(timeout=1)
        words = " | ".join(filter(None, self._words))
        return ConsoleError(f"the chat process ended by itself (exit {code}): {words[-600:]}", "llmconsole doctor")

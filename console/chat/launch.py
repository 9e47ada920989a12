"""Starts the process that holds a model, here or on another machine, with its stdin, stdout and stderr as files.

The one place that knows how; what is said over the pipes is the same everywhere (see `engine.inference.chat_worker`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

from console.errors import ConsoleError
from console.machines.targets import LOCAL
from remote.secret_text import child_environment

if TYPE_CHECKING:
    from console.machines.hosts import Hosts

CHAT = ("-m", "engine", "chat", "--json")
_PATIENCE_S = 2.0


class ChatProcess(Protocol):
    """A started process. `close` ends it at once and never waits long."""

    stdin: Any
    stdout: Any
    stderr: Any

    def poll(self) -> int | None: ...

    def wait(self, timeout: float = ...) -> int: ...

    def close(self) -> None: ...


Launch = Callable[[], ChatProcess]


class ProcessHere:
    """A child of ours in a session of its own: ctrl-c is not for it."""

    def __init__(self, argv: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
                                         env=child_environment())
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout
        self.stderr: IO[bytes] = self._process.stderr

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float = _PATIENCE_S) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        with suppress(OSError):
            self.stdin.close()
        self._process.wait()


def launch_here() -> ChatProcess:
    return ProcessHere([sys.executable, *CHAT])


def launcher(target: str = LOCAL, hosts: Hosts | None = None, words: Sequence[str] = CHAT,
             env: Mapping[str, str] | None = None) -> Launch:
    """Starts Python with these words on that target; `env` is there beside ours, and in no process list.

    Raises NotFound or ConsoleError now, HostUnreachable when it is called.
    """
    if target == LOCAL:
        return lambda: ProcessHere([sys.executable, *words])
    if hosts is None:
        from console.machines.hosts import Hosts

        hosts = Hosts()
    there = hosts.target(target)
    if not there.python:
        raise ConsoleError(f"{target} is not prepared yet", f"llmconsole target up {target}")
    more = {**(env or {}), **({"NANOCHAT_BASE_DIR": there.base} if there.base else {})}

    def launch() -> ChatProcess:
        host: Any = hosts.get(target)
        return host.open_pipe([*there.python, *words], env=more)

    return launch

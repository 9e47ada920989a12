"""Starts the process that holds a model, here or on another machine, with its stdin, stdout and stderr as files.

The one place that knows how; what is said over the pipes is the same everywhere (see `engine.inference.chat_worker`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

from console.errors import ConsoleError
from console.machines.targets import LOCAL, Target
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


def launcher(target: str = LOCAL, hosts: Hosts | None = None) -> Launch:
    """Starts the process on that target. Raises NotFound now, HostUnreachable when it is called."""
    if target == LOCAL:
        return launch_here
    if hosts is None:
        from console.machines.hosts import Hosts

        hosts = Hosts()
    there = prepared(hosts, target)

    def launch() -> ChatProcess:
        host: Any = hosts.get(target)
        return host.open_pipe([*there.python, *CHAT], env={"NANOCHAT_BASE_DIR": there.base} if there.base else None)

    return launch


def prepared(hosts: Hosts, name: str) -> Target:
    """What is known of a target that our code was put on. Raises NotFound, ConsoleError."""
    there = hosts.target(name)
    if not there.python:
        raise ConsoleError(f"{name} is not prepared yet", f"llmconsole target up {name}")
    return there

"""One command on another machine over one channel of a kept connection.

What is run is told to /bin/sh through stdin, so neither the environment nor the words pass through the login shell or
stand in a process list before the command itself does; whatever a login script prints first is thrown away.
"""

from __future__ import annotations

import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import paramiko

from remote.errors import Cancelled, CommandTimeout, HostUnreachable, RunnerFailed
from remote.ssh.link import PACKET, WINDOW, SshLink, ended

_SLICE = 0.2       # seconds between looks at deadlines and whoever may have given up
_PIECE = 1 << 20
T = TypeVar("T")
_NOISE = 1 << 16   # bytes that a login script may print before our command is heard


def script(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, mark: str) -> bytes:
    """What /bin/sh is told: say the mark and the pid, then become the command. Pure."""
    lines = [f"printf '%s %s\\n' {mark} $$"]
    for name, value in (env or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        lines.append(f"export {name}={shlex.quote(value)}")
    if cwd is not None:
        lines.append(f"cd {shlex.quote(cwd)} || exit 126")
    lines.append(f"exec {shlex.join(argv)}")
    return ("\n".join(lines) + "\n").encode()


class Session:
    """A running command. Reading raises HostUnreachable when the connection goes before the command's end is known."""

    def __init__(self, channel: paramiko.Channel, name: str, stop: threading.Event | None = None) -> None:
        self.channel, self.name, self._stop = channel, name, stop
        self.pid = 0
        self._early = b""

    def begin(self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, timeout: float) -> None:
        """Send the script and wait until it speaks."""
        mark = f"llmconsole-{secrets.token_hex(8)}"
        self.channel.exec_command("exec /bin/sh")
        self.send(script(argv, env, cwd, mark))
        deadline, heard = time.monotonic() + timeout, b""
        while not (found := re.search(mark.encode() + rb" (\d+)\n", heard)):
            piece = self.recv(deadline=deadline)
            heard += piece
            if not piece or len(heard) > _NOISE:
                raise RunnerFailed(f"{self.name} has no /bin/sh that does as it is told: {heard[-200:]!r}")
        self.pid = int(found[1])
        self._early = heard[found.end():]

    def send(self, data: bytes, deadline: float | None = None) -> None:
        """All of it. Raises BrokenPipeError when the command no longer reads, HostUnreachable."""
        view = memoryview(data)
        while view:
            self._may_go_on(deadline)
            try:
                self.channel.settimeout(self._slice(deadline))
                view = view[self.channel.send(view[:_PIECE]):]
            except TimeoutError:
                continue
            except (OSError, EOFError) as error:
                self._must_be_alive()
                raise BrokenPipeError(f"the command on {self.name} takes no more input") from error

    def end_input(self) -> None:
        try:
            self.channel.shutdown_write()
        except (OSError, EOFError):  # it has ended already
            self._must_be_alive()

    def recv(self, limit: int = _PIECE, deadline: float | None = None) -> bytes:
        """Some of its output; b"" at its end."""
        if self._early:
            data, self._early = self._early[:limit], self._early[limit:]
            return data
        while True:
            self._may_go_on(deadline)
            self.channel.settimeout(self._slice(deadline))
            try:
                data = self.channel.recv(limit)
            except TimeoutError:
                continue
            if not data and not self.channel.eof_received and not ended(self.channel):
                raise HostUnreachable(f"the connection to {self.name} was lost")
            return data

    def line(self, deadline: float | None = None) -> bytes:
        """One line of its output with its end; b"" when its output has ended."""
        held = b""
        while not (end := held.find(b"\n") + 1):
            piece = self.recv(deadline=deadline)
            if not piece:
                return b""
            held += piece
        self._early = held[end:] + self._early
        return held[:end]

    def exactly(self, count: int, deadline: float | None = None) -> bytes:
        """So many bytes; fewer only at the end of its output."""
        parts, left = [], count
        while left and (piece := self.recv(min(left, _PIECE), deadline)):
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)

    def collect(self, deadline: float) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a command that takes no more input."""
        out: list[bytes] = [self._early]
        err: list[bytes] = []
        self._early = b""
        ends = [False, False]
        while not all(ends):
            self._may_go_on(deadline)
            for which, (ready, recv, into) in enumerate(
                    ((self.channel.recv_ready, self.channel.recv, out),
                     (self.channel.recv_stderr_ready, self.channel.recv_stderr, err))):
                if ends[which]:
                    continue
                self.channel.settimeout(0.02 if not ready() else _SLICE)
                try:
                    piece = recv(_PIECE)
                except TimeoutError:
                    continue
                into.append(piece)
                ends[which] = not piece
        return self.code(deadline), b"".join(out), b"".join(err)

    def code(self, deadline: float) -> int:
        """Its exit code, negative when a signal ended it."""
        while not self.channel.status_event.wait(_SLICE):
            self._may_go_on(deadline)
        if not ended(self.channel):
            raise HostUnreachable(f"the connection to {self.name} was lost; the command may still be at work there")
        return self.channel.exit_status

    def errors(self) -> str:
        """What it has said on stderr so far."""
        said = b""
        while self.channel.recv_stderr_ready():
            said += self.channel.recv_stderr(_PIECE)
        return said.decode(errors="replace").strip()

    def close(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):  # the connection has gone, and the channel with it
            self.channel.close()

    def _must_be_alive(self) -> None:
        transport = self.channel.get_transport()
        if transport is None or not transport.is_active():
            raise HostUnreachable(f"the connection to {self.name} was lost")

    def _slice(self, deadline: float | None) -> float | None:
        """How long to wait at once: for ever when nobody can give up, since a lost connection wakes us."""
        return None if deadline is None and self._stop is None else _SLICE

    def _may_go_on(self, deadline: float | None) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Cancelled(f"given up waiting for {self.name}")
        if deadline is not None and time.monotonic() > deadline:
            raise CommandTimeout(f"no end within the time given on {self.name}")


def open_channel(link: SshLink, name: str, stop: threading.Event | None = None, window: int = WINDOW
                 ) -> paramiko.Channel:
    """Raises HostUnreachable, Cancelled; paramiko.ChannelException when the server allows no more of them."""
    transport = link.transport(stop)
    try:
        return transport.open_session(window_size=window, max_packet_size=PACKET)
    except paramiko.ChannelException:
        raise
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise HostUnreachable(f"the connection to {name} was lost: {error or type(error).__name__}") from None


def leaving_when(stop: threading.Event | None, work: Callable[[], T]) -> T:
    """What `work()` returns or raises; Cancelled as soon as `stop` is set, while `work` ends by itself elsewhere."""
    if stop is None:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def carry_out() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            errors.append(error)
        done.set()

    threading.Thread(target=carry_out, name="ssh-work", daemon=True).start()
    while not done.wait(_SLICE):
        if stop.is_set():
            raise Cancelled("given up")
    if errors:
        raise errors[0]
    return results[0]

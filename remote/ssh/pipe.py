"""Talking through an SSH connection: a command's pipes as files, a forwarded port, the words of a plain `ssh`."""

from __future__ import annotations

import io
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko

from remote.errors import CommandTimeout, HostUnreachable, RemoteError
from remote.ssh.link import SshLink
from remote.ssh.route import Route
from remote.ssh.session import Session

_PIECE = 1 << 16


class _Reader(io.RawIOBase):
    """A session's stdout as a file; the loss of the connection is an end of file."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._session.recv(len(buffer))
        except HostUnreachable:
            return 0
        buffer[: len(data)] = data
        return len(data)


class _Writer(io.RawIOBase):
    def __init__(self, session: Session) -> None:
        self._session = session

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._session.send(bytes(data))
        except (HostUnreachable, OSError) as error:
            raise BrokenPipeError(str(error)) from None
        return len(data)

    def close(self) -> None:
        if not self.closed:
            with suppress(RemoteError):
                self._session.end_input()
        super().close()


class _ErrorReader(io.RawIOBase):
    def __init__(self, session: Session) -> None:
        self._channel = session.channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._channel.recv_stderr(len(buffer))
            except TimeoutError:
                continue
            buffer[: len(data)] = data
            return len(data)


class Pipe:
    """A command there with files for its stdin, stdout and stderr, used as subprocess.Popen's are.

    Lines written are sent at once. After the connection broke, reading ends and writing raises BrokenPipeError.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.stdin = _Writer(session)
        self.stdout = io.BufferedReader(_Reader(session))
        self.stderr = io.BufferedReader(_ErrorReader(session))

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code. Raises CommandTimeout, HostUnreachable."""
        return self._session.code(time.monotonic() + timeout)

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        try:
            return self._session.code(time.monotonic()) if self._session.channel.exit_status_ready() else None
        except CommandTimeout:
            return None

    def close(self) -> None:
        """End it: its input ends, and sshd hangs up on what still runs."""
        self._session.close()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forward:
    """A listening port here, `port`, whose connections are carried there. Raises OSError when `here` is taken."""

    def __init__(self, link: SshLink, host: str, port: int, here: int = 0) -> None:
        self._link, self._target = link, (host, port)
        self._socket = socket.create_server(("127.0.0.1", here))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, name="ssh-forward", daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the one who accepts
        self._socket.close()

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                here, origin = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(here, origin), daemon=True).start()

    def _carry(self, here: socket.socket, origin: tuple[str, int]) -> None:
        with here:
            try:
                there = self._link.transport().open_channel("direct-tcpip", self._target, origin)
            except (RemoteError, paramiko.SSHException, OSError, EOFError):
                return  # whoever connected sees the connection end
            with suppress(OSError):
                _relay(here, there)
            there.close()


def _relay(here: socket.socket, there: paramiko.Channel) -> None:
    """Both directions until either end closes."""
    while True:
        for ready in select.select([here, there], [], [])[0]:
            data = ready.recv(_PIECE)
            if not data:
                return
            (there if ready is here else here).sendall(data)


def shell_argv(route: Route, known_hosts: Path, alias: str, command: Sequence[str] = ()) -> list[str]:
    """`ssh` that trusts exactly what we trust and offers exactly the keys that we offer. Pure."""
    options = {"UserKnownHostsFile": str(known_hosts), "GlobalKnownHostsFile": "/dev/null", "HostKeyAlias": alias,
               "StrictHostKeyChecking": "yes", "UpdateHostKeys": "no", "ForwardAgent": "no", "ServerAliveInterval": "5",
               "ServerAliveCountMax": "3", "IdentitiesOnly": "yes" if route.only_these_keys else "no"}
    words = ["ssh", "-p", str(route.port)]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    if route.proxy_command:
        words += ["-o", f"ProxyCommand={route.proxy_command}"]
    for path in route.key_files:
        words += ["-i", str(path)]
    return [*words, "-t", "-l", route.user, route.host, *command]

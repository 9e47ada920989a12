"""Another machine as a Host, over SSH: the same promises as this machine, plus pipes, forwards and a shell.

Reads are asked of one small process there that stays; each command, follower and copy has a channel of its own. A
connection that breaks is made again by itself: a read is repeated once, a follower and a download go on where they
were, a command is never repeated, because nobody knows how far it came.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paramiko

from remote.errors import (
    Cancelled,
    CommandTimeout,
    FileReplaced,
    HostRefused,
    HostUnreachable,
    NoSuchFile,
    RemoteError,
)
from remote.host import Completed, FileStat
from remote.ssh import copy as ssh_copy
from remote.ssh.files import FileServer, start_server
from remote.ssh.known_hosts import KnownHosts
from remote.ssh.link import Pin, SshLink, pause
from remote.ssh.pipe import Forward, Pipe, shell_argv
from remote.ssh.route import Route
from remote.ssh.session import Session, leaving_when, open_channel

_MOST_LINKS = 4       # servers allow some ten sessions per connection
_STEP = 4 << 20       # bytes asked for at once by `read`
_AFTER_KILL = 5.0     # seconds for the message that ends a command


class KnownKey:
    """The Pin that our known_hosts file decides; `alias` is the machine's name in it."""

    def __init__(self, known_hosts: KnownHosts, alias: str) -> None:
        self.known_hosts, self.alias = known_hosts, alias

    def key_types(self) -> list[str]:
        return [line.split()[0] for line in self.known_hosts.pinned(self.alias)]

    def check(self, line: str) -> None:
        self.known_hosts.check(self.alias, line)


class SshHost:
    """The Host Protocol over SSH. Safe for many threads; nothing is connected before the first use.

    `route` may be a callable that is asked before each connection, for addresses that move. `poll` is how often, in
    seconds, the other side looks at a followed file.
    """

    def __init__(self, name: str, route: Route | Callable[[], Route], pin: Pin, *,
                 python: Sequence[str] = ("python3",), poll: float = 0.1, beat: float = 3.0, dead_after: float = 12.0,
                 connect_timeout: float = 15.0) -> None:
        self.name = name
        self.python: tuple[str, ...] = tuple(python)
        self.route: Callable[[], Route] = route if callable(route) else lambda: route
        self.pin = pin
        self._poll = poll
        self._new_link = lambda: SshLink(self.route, pin, beat=beat, dead_after=dead_after,
                                         connect_timeout=connect_timeout)
        self._links = [self._new_link()]
        self._guard = threading.Lock()
        self._server: FileServer | None = None
        self._server_guard = threading.Lock()

    # The Protocol.

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None,
            cwd: str | None = None, timeout: float = 60.0) -> Completed:
        session = self.start(argv, env=env, cwd=cwd, timeout=timeout)
        deadline = time.monotonic() + timeout
        try:
            feeder = threading.Thread(target=_feed, args=(session, stdin, deadline), daemon=True)
            feeder.start()
            return Completed(*session.collect(deadline))
        except CommandTimeout:
            self._kill(session.pid)
            raise CommandTimeout(f"{argv[0]} did not end within {timeout:g} s on {self.name}") from None
        finally:
            session.close()

    def run_script(self, script: Path, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        source = script.read_bytes()
        program = (f"import sys; s = sys.stdin.buffer.read({len(source)}); sys.argv[0] = {script.name!r}; "
                   f"exec(compile(s, {script.name!r}, 'exec'))")
        return self.run([*self.python, "-I", "-S", "-c", program, *argv], stdin=source + stdin, timeout=timeout)

    def read(self, path: str, offset: int = 0, limit: int | None = None) -> bytes:
        parts: list[bytes] = []
        left = limit
        while left is None or left > 0:
            step = _STEP if left is None else min(_STEP, left)
            piece, _ = self._ask("read", path=path, offset=offset, limit=step)
            parts.append(piece)
            offset += len(piece)
            left = None if left is None else left - len(piece)
            if len(piece) < step:
                break
        return b"".join(parts)

    def stat(self, path: str) -> FileStat | None:
        try:
            _, found = self._ask("stat", path=path)
        except NoSuchFile:
            return None
        return FileStat(found["size"], found["inode"], found["mtime"])

    def listdir(self, path: str) -> list[str]:
        return self._ask("list", path=path)[1]["names"]

    def put(self, local: Path, remote: str, *, stop: threading.Event | None = None,
            progress: Callable[[int, int], None] | None = None) -> None:
        leaving_when(stop, lambda: ssh_copy.put(self._order, self.name, local, remote, stop, progress))

    def get(self, remote: str, local: Path, *, stop: threading.Event | None = None,
            progress: Callable[[int, int], None] | None = None, patience: float = 300.0) -> None:
        """As the Protocol says; `progress` hears (bytes here, bytes in all). A broken connection is waited for up to
        `patience` seconds; what has arrived stays for the next call."""
        ssh_copy.get(self._order, self.name, remote, local, stop or threading.Event(), progress, patience)

    def follow(self, path: str, offset: int, stop: threading.Event) -> Iterator[bytes]:
        follower = _Follower(path, offset)
        tries = 0
        while not stop.is_set():
            try:
                session = self._order(follower.order(self._poll), stop)
                for piece in follower.pieces(session):
                    tries = 0
                    yield piece
                    if stop.is_set():
                        return
            except HostRefused:  # noqa: PERF203 - the loop is the trying again
                raise
            except HostUnreachable:
                stop.wait(pause(tries))
                tries += 1
            except Cancelled:
                return

    # Beyond the Protocol.

    def connect(self, stop: threading.Event | None = None) -> None:
        """Be connected, or raise: HostKeyUnknown and LoginRefused are for a person, HostUnreachable is for later."""
        self._links[0].transport(stop)

    @property
    def connected(self) -> bool:
        return self._links[0].alive

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None,
              stop: threading.Event | None = None, timeout: float = 60.0) -> Session:
        """Start a command whose input and output the caller handles."""
        return leaving_when(stop, lambda: self._start(argv, env, cwd, stop, timeout))

    def _start(self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None,
               stop: threading.Event | None, timeout: float) -> Session:
        session = Session(self._channel(stop), self.name, stop)
        try:
            session.begin(argv, env, cwd, timeout)
        except (paramiko.SSHException, OSError, EOFError) as error:
            session.close()
            raise HostUnreachable(f"the connection to {self.name} was lost: {error or 'no reply'}") from None
        except RemoteError:
            session.close()
            raise
        return session

    def open_pipe(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Pipe:
        """A command's stdin, stdout and stderr as files, for talking to it."""
        return Pipe(self.start(argv, env=env, cwd=cwd))

    def forward(self, port: int, host: str = "127.0.0.1", here: int = 0) -> Forward:
        """A port of 127.0.0.1 here, `here` or a free one, that leads to `host:port` as seen from there, until it is
        closed. Raises OSError when it is taken."""
        return Forward(self._links[0], host, port, here)

    def shell_argv(self, command: Sequence[str] = ()) -> list[str]:
        """The words of a plain `ssh` that opens a shell in a person's own terminal, with the same key and pin."""
        if not isinstance(self.pin, KnownKey):
            raise HostUnreachable(f"{self.name} was not reached yet, so its key is not known")
        return shell_argv(self.route(), self.pin.known_hosts.path, self.pin.alias, command)

    def close(self) -> None:
        """Let the connections go and wake everybody who waits on them, within a second."""
        with self._guard:
            links = list(self._links)
        for link in links:
            link.close()

    # Inside.

    def _channel(self, stop: threading.Event | None) -> paramiko.Channel:
        """A channel of the first connection that has one to give."""
        for index in range(_MOST_LINKS):
            with self._guard:
                if index == len(self._links):
                    self._links.append(self._new_link())
                link = self._links[index]
            try:
                return open_channel(link, self.name, stop)
            except paramiko.ChannelException:
                continue
        raise HostUnreachable(f"{self.name} opens no more sessions: too much is going on there at once")

    def _order(self, order: Mapping[str, Any], stop: threading.Event | None) -> Session:
        return start_server(lambda argv: self.start(argv, stop=stop), self.python, order)

    def _ask(self, op: str, **words: Any) -> tuple[bytes, dict[str, Any]]:
        """One question to the file server; asked again once when the connection broke under it."""
        try:
            return self._files().ask(op, words)
        except HostUnreachable:
            if not self._links[0].connects:
                raise
            return self._files().ask(op, words)

    def _files(self) -> FileServer:
        with self._server_guard:
            if self._server is None or self._server.error or self._server.python != self.python:
                self._server = FileServer(self._order({"mode": "serve"}, None), self.python)
            return self._server

    def _kill(self, pid: int) -> None:
        """End a command and what it started: sshd makes each command the leader of its own process group."""
        words = f"kill -KILL -- -{pid} 2>/dev/null || kill -KILL {pid}"
        try:
            session = self.start(["/bin/sh", "-c", words], timeout=_AFTER_KILL)
            session.collect(time.monotonic() + _AFTER_KILL)
            session.close()
        except (HostUnreachable, CommandTimeout):
            return  # it was tried, which is all that is promised


def _feed(session: Session, stdin: bytes, deadline: float) -> None:
    try:
        session.send(stdin, deadline)
        session.end_input()
    except (RemoteError, OSError):
        return  # the command has ended, or the connection has: whoever collects will tell


class _Follower:
    """How far a file was followed, over any number of connections."""

    def __init__(self, path: str, offset: int) -> None:
        self.path, self.offset = path, offset
        self.inode: int | None = None

    def order(self, poll: float) -> dict[str, Any]:
        return {"mode": "follow", "path": self.path, "offset": self.offset, "inode": self.inode, "poll": poll}

    def pieces(self, session: Session) -> Iterator[bytes]:
        try:
            for kind, data in _frames(session):
                if kind == b"R":
                    raise FileReplaced(self.path)
                if kind == b"I":
                    self.inode = int(data)
                else:
                    self.offset += len(data)
                    yield data
        finally:
            session.close()


def _frames(session: Session) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of a follower's output; the end of the output is a lost connection."""
    held = bytearray()
    while True:
        end = held.find(b"\n")
        if end >= 0:
            kind, size = bytes(held[:1]), int(held[1:end])
            if len(held) - end - 1 >= size:
                yield kind, bytes(held[end + 1: end + 1 + size])
                del held[: end + 1 + size]
                continue
        piece = session.recv()
        if not piece:
            raise HostUnreachable(f"the follower on {session.name} ended: {session.errors() or 'no word why'}")
        held += piece

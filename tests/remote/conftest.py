"""A real SSH server on loopback, with a home folder of its own, for everything that reaches another machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote.local import LocalHost
from remote.ssh.host import KnownKey, SshHost
from remote.ssh.keys import make_key, public_line
from remote.ssh.known_hosts import KnownHosts
from remote.ssh.route import Route

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@dataclass
class Box:
    """A machine with an SSH server: its folder, its key, and how to make Hosts that reach it."""

    folder: Path
    home: Path
    port: int
    key: Path
    host_key: str
    process: subprocess.Popen[bytes]

    def route(self, port: int = 0) -> Route:
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        return Route("127.0.0.1", port or self.port, user, (self.key,), only_these_keys=True)

    def host(self, port: int = 0, **words: object) -> SshHost:
        known = KnownHosts(self.folder / "known_hosts")
        known.pin("box", self.host_key)
        return SshHost("box", self.route(port), KnownKey(known, "box"),
                       **{"python": (sys.executable,), "poll": 0.01, **words})  # type: ignore[arg-type]


def start_sshd(folder: Path) -> Box:
    if SSHD is None:
        pytest.skip("needs OpenSSH's server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server refuses to start as root without it
    home = folder / "home"
    home.mkdir(parents=True)
    key, host_key = folder / "id", folder / "host"
    (folder / "authorized_keys").write_text(make_key(key) + "\n")
    make_key(host_key)
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\nUsePAM no\n"
                      f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nPasswordAuthentication no\n"
                      f"SetEnv HOME={home}\nMaxStartups 100\nSubsystem sftp internal-sftp\n")
    process = subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(folder / "log")])
    wait_for_port(port)
    return Box(folder, home, port, key, public_line(host_key), process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    found = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield found
    found.process.terminate()
    found.process.wait()


@pytest.fixture(scope="session")
def pretended_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The SSH server of pods that are only pretended to be rented."""
    from remote.fake_runpod.sshd import PodSshd

    folder = tmp_path_factory.mktemp("podsshd")
    (folder / "home").mkdir()
    public, host_key = make_key(folder / "id"), make_key(folder / "host")
    server = PodSshd(folder / "host", public, {**os.environ, "HOME": str(folder / "home")}, folder / "home")
    yield Box(folder, folder / "home", server.port, folder / "id", host_key, subprocess.Popen(["true"]))
    server.close()


@pytest.fixture(params=["local", "ssh"])
def any_host(request: pytest.FixtureRequest) -> Iterator[LocalHost | SshHost]:
    """This machine, and the same machine over SSH: nothing may be different."""
    if request.param == "local":
        yield LocalHost(poll=0.01)
        return
    host = request.getfixturevalue("box" if request.param == "ssh" else "pretended_box").host()
    yield host
    host.close()


class Relay:
    """A TCP relay to a port that can be cut, frozen, slowed, and refuse."""

    def __init__(self, port: int, *, delay: float = 0.0) -> None:
        self._to, self._delay = port, delay
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.frozen, self.refusing = threading.Event(), threading.Event()
        self._open: set[socket.socket] = set()
        self.connections = 0
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection now."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing.is_set():
                near.close()
                continue
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(end)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self.frozen.is_set() and not self._ended:
                    time.sleep(0.01)
                sink.sendall(data)
        for end in (source, sink):
            self._open.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay_to() -> Iterator[Callable[[int], Relay]]:
    made: list[Relay] = []

    def make(port: int) -> Relay:
        made.append(Relay(port))
        return made[-1]

    yield make
    for relay in made:
        relay.close()

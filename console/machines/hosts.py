"""Open doors to targets: one Host per machine, kept while the console is open, and how each answers.

A machine that does not answer is left alone for a while, longer each time, so that a dead link costs a list of runs
nothing; `contact` is for looking, `get` for doing what a person asked. It knows no runs and no money.
"""

from __future__ import annotations

import os
import random
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import NotFound
from console.machines.targets import LOCAL, Target, Targets
from console.paths import Home, home
from remote.errors import CommandTimeout, HostRefused, HostUnreachable

if TYPE_CHECKING:
    from remote.host import Host
    from remote.ssh.host import SshHost
    from remote.ssh.route import Route

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


@dataclass(frozen=True)
class Silence:
    """A machine that does not answer: since when (wall time), how often it was tried, when it is tried next."""

    since: float
    tries: int
    next_try: float
    error: str

    def __str__(self) -> str:
        now = time.time()
        return (f"no answer since {now - self.since:.0f} s (try {self.tries}, next in "
                f"{max(self.next_try - now, 0):.0f} s): {self.error}")


class Hosts:
    """Safe for many threads. `make` builds the Host of a target; tests give their own."""

    def __init__(self, folder: Path | None = None, make: Callable[[Target, Home], Host] | None = None) -> None:
        self._home = Home(folder or home())
        self.targets = Targets(self._home.path)
        self._make = make or _make
        self._open: dict[str, tuple[object, Host]] = {}
        self._silent: dict[str, Silence] = {}
        self._guard = threading.Lock()
        self._read: tuple[object, dict[str, Target]] = (None, {})

    def target(self, name: str) -> Target:
        """What is known of a target. Raises NotFound."""
        found = self._known().get(name)
        return found if found is not None else self.targets.find(name)

    def get(self, name: str) -> Host:
        """The Host that reaches a target, whether or not it answered last time. Raises NotFound."""
        target = self.target(name)
        way = _way(target)
        with self._guard:
            held = self._open.get(name)
            if held is not None and held[0] == way:
                return held[1]
            host = self._make(target, self._home)
            self._open[name] = (way, host)
        if held is not None:
            _close(held[1])
        return host

    @contextmanager
    def contact(self, name: str) -> Iterator[Host]:
        """The Host for a look. Raises HostUnreachable at once while a silent machine is being left alone."""
        silent = self._silent.get(name)
        if silent is not None and 0 < silent.next_try - time.time() <= 2 * LONGEST_PAUSE_S:  # later: a clock set back
            raise HostUnreachable(silent.error)
        host = self.get(name)
        try:
            yield host
        except (HostUnreachable, CommandTimeout) as error:
            self._failed(name, str(error))
            raise HostUnreachable(str(error)) from error
        self._silent.pop(name, None)

    def silence(self, name: str) -> Silence | None:
        """How long this machine has not answered, or None when it did."""
        return self._silent.get(name)

    def silences(self) -> dict[str, Silence]:
        return dict(self._silent)

    def try_now(self, name: str) -> None:
        """Do not wait until the next try."""
        self._silent.pop(name, None)

    def _failed(self, name: str, error: str) -> None:
        before, now = self._silent.get(name), time.time()
        tries = before.tries + 1 if before else 1
        pause = min(FIRST_PAUSE_S * 2 ** min(tries - 1, 10), LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)
        self._silent[name] = Silence(before.since if before else now, tries, now + pause, error)

    def _known(self) -> dict[str, Target]:
        """The targets, read again only when the file has changed."""
        try:
            found = self.targets.path.stat()
            stamp: object = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            stamp = "none"
        if self._read[0] != stamp:
            self._read = (stamp, {target.name: target for target in self.targets.all()})
        return self._read[1]

    def close(self) -> None:
        """Let every connection go; a later `get` opens a new one."""
        with self._guard:
            held, self._open = list(self._open.values()), {}
        for _, host in held:
            _close(host)


def _way(target: Target) -> object:
    """What a Host is made from."""
    return target.kind, target.python


def _close(host: Host) -> None:
    close = getattr(host, "close", None)  # this machine has no connection to close
    if close is not None:
        with suppress(HostUnreachable):
            close()


def _make(target: Target, home: Home) -> Host:
    if target.name == LOCAL:
        from remote.local import LocalHost

        return LocalHost()
    return ssh_host(target, home)


def ssh_host(target: Target, home: Home, *, listed: bool = True) -> SshHost:
    """The way to another machine; its library is imported here because it costs start time. Nothing is connected yet.

    The address of a `listed` target is looked up before each connection: that of a pod moves.
    """
    from remote.ssh.host import KnownKey, SshHost
    from remote.ssh.known_hosts import KnownHosts

    targets = Targets(home.path)

    def route() -> Route:
        try:
            return route_to(targets.find(target.name) if listed else target)
        except NotFound as error:
            raise HostRefused(f"{target.name} is not a target any more") from error

    pin = KnownKey(KnownHosts(home.known_hosts), target.alias)
    return SshHost(target.name, route, pin, python=target.python or ("python3",))


def shell_argv(target: Target, home: Home, command: Sequence[str] = ()) -> list[str]:
    """The words that open a shell there in a person's own terminal, or run one command."""
    if target.kind != LOCAL:
        return ssh_host(target, home).shell_argv(command)
    return [os.environ.get("SHELL", "/bin/sh"), *(["-c", shlex.join(command)] if command else [])]


def route_to(target: Target) -> Route:
    """Address, user and keys; what the target does not name is taken from the person's own ssh config."""
    from remote.ssh.route import resolve

    return resolve(target.host, target.port, target.user, Path(target.key_file) if target.key_file else None)

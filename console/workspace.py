"""Everything that belongs to one open console: the writer's lock, both databases, the operator.

One process at a time may write. A second console opens read-only, says who owns the files, and may take over when the
owner has left. It knows nothing of screens or verbs.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import ConsoleError
from console.machines.hosts import Hosts
from console.paths import Home
from console.paths import home as default_home
from console.runlog import migrations
from console.runlog.db import Readers, damage, open_reader, open_writer
from console.runlog.queries import Queries

if TYPE_CHECKING:
    from console.operator import Operator, Pipeline
    from console.runlog.ingest import Follower

_THOROUGH_BELOW = 16 << 20  # checking every page of a file this small takes some milliseconds


@dataclass(frozen=True)
class Owner:
    """Who holds the writer's lock."""

    pid: int
    host: str
    since: float
    command: str

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.command} (pid {self.pid} on {self.host}, since {since})"


class Workspace:
    """Open with `Workspace.open`, leave with `close` or `with`.

    `read_only` is True when another console owns the files (`owner` says who) or when it was asked for.
    `notices` are sentences that the person should see once: what was rebuilt or set aside at the start.
    """

    operator: Operator

    def __init__(self, home: Home) -> None:
        self.home = home
        self.queries = Queries(home.runlog)
        self.hosts = Hosts(home.path)
        self.read_only = True
        self.hands_off = False  # a person wants nothing changed from here for a while; the log is still kept up to date
        self.owner: Owner | None = None
        self.notices: list[str] = []
        self.guard = threading.RLock()  # whoever uses the two writing connections holds it
        self.runlog: sqlite3.Connection | None = None
        self.ledger: sqlite3.Connection | None = None
        self._lock_fd = -1
        self._asked_read_only = False
        self._followers: list[Follower] = []
        self._ledger_readers = Readers(home.ledger)

    @classmethod
    def open(cls, home: Path | None = None, read_only: bool = False, *, patience: float = 0.5,
             pipeline: Pipeline | None = None) -> Workspace:
        """Open the console's state. Waits `patience` seconds for a short-lived owner before settling for read-only.

        `pipeline` builds the command of a run instead of the real supervisor's.
        """
        from console.operator import Operator

        self = cls(Home(home or default_home()))
        self._asked_read_only = read_only
        try:
            if not read_only:
                self._become_writer(time.monotonic() + patience)
            self._ensure_files()
        except BaseException:
            self.close()
            raise
        self.operator = Operator(self, pipeline)
        if not self.read_only:
            self.notices.extend(self.operator.recover())
        return self

    @property
    def may_change(self) -> bool:
        """Whether a person may start, stop, copy or delete something from here."""
        return not (self.read_only or self.hands_off)

    def promote(self) -> bool:
        """Become the writer if the owner has left; True when this console writes now."""
        if self.read_only and not self._asked_read_only:
            with self.guard:
                self._become_writer(time.monotonic())
                if not self.read_only:
                    self.operator.recover()
        return not self.read_only

    def ledger_writer(self) -> sqlite3.Connection:
        if self.ledger is None:
            raise sqlite3.ProgrammingError("the ledger is not open for writing")
        return self.ledger

    def ledger_reader(self) -> sqlite3.Connection:
        return self._ledger_readers.get()

    def watch(self, run_id: str) -> None:
        """Tell followers that this run is about to move."""
        for follower in self._followers:
            follower.watch(run_id)

    def ingest(self) -> int:
        """Read what is new in every run, once; how many events came. 0 in a read-only console."""
        from console.runlog.ingest import Ingest

        return 0 if self.read_only else Ingest(self).all()

    def follow(self, on_change: Callable[[frozenset[str]], None] | None = None) -> Follower:
        """A started thread that keeps the run log up to date and calls `on_change(run ids)` from its own thread."""
        from console.runlog.ingest import Follower

        follower = Follower(self, on_change)
        self._followers.append(follower)
        follower.start()
        return follower

    def close(self) -> None:
        """Stop followers, close both databases, let the lock go. Safe to call twice."""
        for follower in self._followers:
            follower.stop()
        self._followers.clear()
        if hasattr(self, "operator"):
            self.operator.rentals.close()
        self.hosts.close()
        self.queries.close()
        self._ledger_readers.close()
        with self.guard:
            for connection in (self.runlog, self.ledger):
                if connection is not None:
                    connection.close()
            self.runlog = self.ledger = None
            if self._lock_fd >= 0:
                os.ftruncate(self._lock_fd, 0)  # an empty lock file means: closed in order
                os.close(self._lock_fd)
                self._lock_fd = -1
        self.read_only = True

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _become_writer(self, deadline: float) -> None:
        crashed = self._take_lock(deadline)
        if crashed is None:
            return
        self._open_ledger(crashed)
        self._open_runlog(crashed)
        self.read_only, self.owner = False, None

    def _take_lock(self, deadline: float) -> bool | None:
        """None when somebody else has the lock; else whether the last owner died without closing."""
        self.home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self.owner = _read_owner(fd)
                    os.close(fd)
                    return None
                time.sleep(0.02)
        crashed = os.fstat(fd).st_size > 0
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(_me()).encode(), 0)
        self._lock_fd = fd
        return crashed

    def _open_runlog(self, crashed: bool) -> None:
        """The run log is rebuildable: when it is damaged it is set aside and read again from the run folders."""
        path = self.home.runlog
        if reason := _damage(path, crashed):
            kept = _set_aside(path)
            self.notices.append(f"The run log was damaged ({reason}). It was kept as {kept.name} and is rebuilt from "
                                "the run folders.")
        self.runlog = open_writer(path, synchronous="NORMAL")
        migrations.migrate(self.runlog, path, migrations.RUNLOG)

    def _open_ledger(self, crashed: bool) -> None:
        """The ledger is precious: when it is damaged it is set aside, and its rows cannot be rebuilt."""
        path = self.home.ledger
        if reason := _damage(path, crashed):
            kept = _set_aside(path)
            self.notices.append(f"The ledger was damaged ({reason}). It was kept as {kept.name}; a new one was begun, "
                                "so starts that were pending are not carried out.")
        self.ledger = open_writer(path, synchronous="FULL")
        migrations.migrate(self.ledger, path, migrations.LEDGER)

    def _ensure_files(self) -> None:
        """A reader needs the file: wait for an owner that is just making it, else say so."""
        deadline = time.monotonic() + 2
        while self.read_only and not (_tables_version(self.home.runlog) and _tables_version(self.home.ledger)):
            if time.monotonic() >= deadline or self.owner is None:
                raise ConsoleError(f"there is no run log in {self.home.path} yet, and a read-only console makes none",
                                   "open llmconsole once without --read-only")
            time.sleep(0.02)
        if self.read_only:
            for path, steps in ((self.home.runlog, migrations.RUNLOG), (self.home.ledger, migrations.LEDGER)):
                migrations.refuse_newer(_tables_version(path), path, steps)


def _me() -> dict[str, object]:
    import sys

    command = " ".join([Path(sys.argv[0]).name or "llmconsole", *sys.argv[1:3]])
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": command[:80]}


def _read_owner(fd: int) -> Owner:
    try:
        found = json.loads(os.pread(fd, 4096, 0))
        return Owner(int(found["pid"]), str(found["host"]), float(found["since"]), str(found["command"]))
    except (ValueError, KeyError, TypeError):  # the owner is just writing it
        return Owner(0, "this machine", time.time(), "another llmconsole")


def _damage(path: Path, crashed: bool) -> str:
    if not path.exists():
        return ""
    return damage(path, thorough=crashed or path.stat().st_size < _THOROUGH_BELOW)


def _set_aside(path: Path) -> Path:
    kept = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    number = 1
    while kept.exists():
        number += 1
        kept = kept.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{number}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, kept.with_name(kept.name + suffix))
    return kept


def _tables_version(path: Path) -> int:
    """How far the tables in a file have come; 0 when there are none yet, or nobody can read them yet."""
    try:
        reader = open_reader(path)
    except sqlite3.OperationalError:
        return 0
    try:
        return migrations.version_of(reader)
    except sqlite3.OperationalError:
        return 0
    finally:
        reader.close()

"""From event streams to the run log: every complete line exactly once, whatever is killed in between.

Rows and the new byte offset are committed together, so a kill between two batches repeats nothing and loses nothing.
A far run's files are copied here first (`console.machines.mirror`); from there on it differs in nothing from others.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from console.errors import NotFound
from console.machines.mirror import Mirror, folder_of
from console.machines.targets import LOCAL
from console.runlog import apply
from console.runlog.db import transaction
from engine.events import parse_line, split_lines
from engine.rundir import RunDir, base_dir, runs_dir, valid_run_id
from remote.errors import HostUnreachable, RemoteError
from remote.local import LocalHost

if TYPE_CHECKING:
    from console.workspace import Workspace
    from remote.host import FileStat, Host

BATCH_ROWS, BATCH_SECONDS = 20_000, 0.25
ALL_LOGS_S = 5.0  # how often all logs of a far run are looked at, not only that of the stage that runs
_CHUNK = 1 << 20
_LONGEST_LINE = 32 << 20
_FOREIGN_ERRORS = (TypeError, ValueError, KeyError, AttributeError, OverflowError, sqlite3.InterfaceError,
                   sqlite3.IntegrityError, sqlite3.ProgrammingError)


class Ingest:
    """One pass over the runs. `should_stop` is asked between two transactions."""

    def __init__(self, workspace: Workspace, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._workspace, self._should_stop = workspace, should_stop
        self._here = LocalHost()
        self._next_copy: dict[str, float] = {}  # by run: when all its logs are copied again

    def all(self) -> int:
        """Find new runs, then read what is new in each; how many events came."""
        self.discover()
        return sum(self.run(run_id) for run_id in self.known())

    def known(self) -> list[str]:
        """The runs that may have news, newest first: all on this machine, elsewhere those whose newest attempt reports
        no end."""
        launched = self._workspace.operator.ledger.last_attempts()
        with self._workspace.guard:
            rows = self._db.execute("SELECT id, attempt, target = 'local' OR coalesce(reported, 'started') = 'started' "
                                    "FROM runs ORDER BY created DESC").fetchall()
        return [run for run, attempt, open_end in rows
                if open_end or (run in launched and launched[run].attempt > attempt)]

    @property
    def _db(self) -> sqlite3.Connection:
        if self._workspace.runlog is None:
            raise sqlite3.ProgrammingError("the run log is closed")
        return self._workspace.runlog

    def discover(self) -> list[str]:
        """Put run folders below this machine's base directory that the log does not know into it; their ids."""
        folder = runs_dir(base_dir())
        if not folder.is_dir():
            return []
        with self._workspace.guard:
            known = dict(self._db.execute("SELECT id, path FROM runs WHERE target = 'local'"))
        new = [RunDir(path) for path in sorted(folder.iterdir()) if known.get(path.name) != str(path)]
        return [run.id for run in new if valid_run_id(run.id) and self._add(run)]

    def _add(self, run: RunDir) -> bool:
        try:
            description = run.read()
            with self._workspace.guard, transaction(self._db):
                apply.describe(self._db, run.id, "local", str(run.path), description)
        except (OSError, *_FOREIGN_ERRORS):  # not a run of ours, or one whose run.json is not there yet
            return False
        return True

    def run(self, run_id: str) -> int:
        """Read what is new in one run; how many events came. A machine that is silent or gone has no news."""
        with self._workspace.guard:
            row = self._db.execute("SELECT runs.key, target, path, inode, offset, generation, last_stage FROM runs "
                                   "LEFT JOIN sources ON run = runs.key WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            return 0
        key, target, path = row[:3]
        folder = self._copied(run_id, target, path, row[6])
        host, events = self._here, str(folder.events)
        stat = host.stat(events)
        if stat is None or (row[3] == stat.inode and row[4] == stat.size):
            return 0
        offset = self._position(host, events, stat, key, row[3], row[4], row[5])
        return self._read(host, events, key, offset, stat.size)

    def _copied(self, run_id: str, target: str, path: str, stage: str | None) -> RunDir:
        """Where the run's files are on this machine, after those of a far run were copied as far as they go."""
        folder = folder_of(self._workspace.home, run_id, target, path)
        if target == LOCAL:
            return folder
        due = time.monotonic() >= self._next_copy.get(run_id, 0.0)
        try:
            with self._workspace.hosts.contact(target) as host:
                mirror = Mirror(self._workspace.home, run_id, host, path)
                if due:
                    mirror.pull_all()
                    self._next_copy[run_id] = time.monotonic() + ALL_LOGS_S
                else:
                    mirror.pull(stage)
        except (HostUnreachable, NotFound):  # silent or gone: what was copied is read all the same
            pass
        return folder

    def _position(self, host: Host, events: str, stat: FileStat, key: int, inode: int | None, offset: int | None,
                  generation: int | None) -> int:
        """Where to read on: after what is known, or from the start when this is not the file that was read."""
        same = inode == stat.inode and offset is not None and stat.size >= offset
        if same and offset and host.read(events, offset - 1, 1) != b"\n":
            same = False
        if same and offset is not None:
            return offset
        with self._workspace.guard, transaction(self._db):
            if inode is not None:
                apply.forget(self._db, key)
            self._db.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, 0, ?, 0)",
                             (key, stat.inode, (generation or 0) + 1))
        return 0

    def _read(self, host: Host, events: str, key: int, offset: int, size: int) -> int:
        count, limit = 0, _CHUNK
        while offset < size and not self._should_stop():
            chunk = host.read(events, offset, limit)
            lines, used = split_lines(chunk)
            if not used:
                if len(chunk) < limit:
                    break  # a torn last line: not yet
                if limit < _LONGEST_LINE:
                    limit *= 2
                    continue
                lines, used = [chunk[:-1]], len(chunk)  # nobody writes such a line: step over it in pieces
            count += self._apply(key, lines, offset)
            offset, limit = offset + used, _CHUNK
        return count

    def _apply(self, key: int, lines: list[bytes], offset: int) -> int:
        """Apply lines in transactions of a bounded size, each with the offset that it reaches."""
        position, total = 0, 0
        while position < len(lines) and not self._should_stop():
            with self._workspace.guard, transaction(self._db):
                applier, rows, damaged, started = apply.Applier(self._db, key), 0, 0, time.monotonic()
                while position < len(lines) and rows < BATCH_ROWS and time.monotonic() - started < BATCH_SECONDS:
                    done = _apply_line(applier, lines[position], offset)
                    rows, damaged = rows + (done or 1), damaged + (done is None)
                    total += done is not None
                    offset += len(lines[position]) + 1
                    position += 1
                applier.flush()
                self._db.execute("UPDATE sources SET offset = ?, damaged_lines = damaged_lines + ? WHERE run = ?",
                                 (offset, damaged, key))
        return total


def _apply_line(applier: apply.Applier, line: bytes, at: int) -> int | None:
    """Rows written, or None for a line that is no event of ours."""
    event = parse_line(line)
    if event is None:
        return None
    try:
        return applier.apply(event, at)
    except _FOREIGN_ERRORS:  # the shape is right but a value is not: counted in damaged_lines, the rest is read
        return None


class Follower(threading.Thread):
    """Keeps the run log up to date: streams that move are read four times a second, the others every five seconds.

    In a read-only console it waits for the owner to leave, then takes over. `problem` says in words what keeps it from
    reading, or is ''.
    """

    FAST_S, SLOW_S, ACTIVE_S = 0.25, 5.0, 60.0

    def __init__(self, workspace: Workspace, on_change: Callable[[frozenset[str]], None] | None = None) -> None:
        super().__init__(name="runlog-follower", daemon=True)
        self._workspace, self._on_change = workspace, on_change
        self._stopping = threading.Event()
        self._ingest = Ingest(workspace, self._stopping.is_set)
        self._moved: dict[str, float] = {}
        self._next_sweep = 0.0
        self.problem = ""

    def stop(self) -> None:
        """Ask and wait; a pass in progress ends after its transaction, well within 0.3 s."""
        self._stopping.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout=2.0)

    def run(self) -> None:
        while not self._stopping.is_set():
            changed, problem = self._turn()
            told = problem != self.problem
            self.problem = problem
            if (changed or told) and self._on_change and not self._stopping.is_set():
                self._on_change(changed)
            self._stopping.wait(self.FAST_S)

    def _turn(self) -> tuple[frozenset[str], str]:
        try:
            if self._workspace.read_only and not self._workspace.promote():
                return frozenset(), ""
            return self._pass(), ""
        except (sqlite3.Error, OSError, RemoteError) as error:
            if self._stopping.is_set():
                return frozenset(), ""
            return frozenset(), f"the run log is not being updated: {error}"

    def _pass(self) -> frozenset[str]:
        now, changed = time.monotonic(), set()
        if now >= self._next_sweep:
            self._next_sweep = now + self.SLOW_S
            changed.update(self._ingest.discover())
            due = self._ingest.known()
        else:
            due = [run for run, moved in self._moved.items() if now - moved < self.ACTIVE_S]
        for run_id in due:
            if self._stopping.is_set():
                break
            if self._ingest.run(run_id):
                self._moved[run_id] = now
                changed.add(run_id)
        return frozenset(changed)

    def watch(self, run_id: str) -> None:
        """Read this run fast from now on: it was just started."""
        self._moved[run_id] = time.monotonic()
        self._next_sweep = 0.0

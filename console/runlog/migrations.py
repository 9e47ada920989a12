"""The history of both databases' tables, oldest first; the last state is what the code expects.

A database's `user_version` says how many steps it has taken. Steps only go forward, each in one transaction with its
number; a file from a newer program is refused, and a file with rows in it is copied before it is changed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from console.errors import UsageProblem
from console.runlog.db import transaction

Step = Callable[[sqlite3.Connection], None]


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> int:
    """Bring the open database at `path` up to date and return how many steps that took."""
    version = version_of(connection)
    refuse_newer(version, path, steps)
    if 0 < version < len(steps):
        copy_aside(connection, path.with_name(f"{path.name}.v{version}.bak"))
    for number, step in enumerate(steps[version:], version + 1):
        with transaction(connection):
            step(connection)
            connection.execute(f"PRAGMA user_version={number}")
    return len(steps) - version


def version_of(connection: sqlite3.Connection) -> int:
    """How many steps the open database has taken; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def refuse_newer(version: int, path: Path, steps: Sequence[Step]) -> None:
    """Raise UsageProblem when this program cannot know what is in the file."""
    if version > len(steps):
        raise UsageProblem(f"{path} was written by a newer llmconsole (its tables are version {version}, this program "
                           f"knows {len(steps)}), so it is left alone",
                           "update llmconsole, or set LLMCONSOLE_HOME to another folder")


def copy_aside(connection: sqlite3.Connection, target: Path) -> None:
    """A consistent copy of the open database, WAL included; an older copy of the same name is replaced."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(temporary),))
    os.replace(temporary, target)


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """`executescript` would commit the open transaction, so the statements go one by one."""
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def runlog_001_initial(connection: sqlite3.Connection) -> None:
    """Runs, their stages, events, curves and checkpoints, and how far each run's stream has been read.

    `at` is where an event's line starts in events.jsonl: unique, and the order of events whatever the clocks said.
    `points` is one number of one curve; a million of them are read in order without touching others. NULL in `value`
    stands for NaN, because SQLite has none. `metrics` is the same for people who write SQL.
    """
    _run_script(connection, """
CREATE TABLE runs (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, target TEXT NOT NULL, path TEXT NOT NULL,
    recipe TEXT NOT NULL, title TEXT NOT NULL, created REAL NOT NULL, software TEXT NOT NULL, description TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, reported TEXT, started REAL, ended REAL, exit_code INTEGER, reason TEXT,
    last_event REAL, last_stage TEXT
) STRICT;
CREATE INDEX runs_by_age ON runs (created DESC);
CREATE TABLE stages (
    run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE, id TEXT NOT NULL, position INTEGER NOT NULL,
    stage TEXT NOT NULL, title TEXT NOT NULL, args TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', attempt INTEGER NOT NULL DEFAULT 0, started REAL, ended REAL, seconds REAL,
    exit_code INTEGER, reason TEXT, resumed INTEGER NOT NULL DEFAULT 0, done REAL, total REAL, unit TEXT, eta_s REAL,
    log TEXT,
    config TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (run, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE, at INTEGER NOT NULL, attempt INTEGER NOT NULL,
    t REAL NOT NULL, kind TEXT NOT NULL, stage TEXT, step INTEGER, data TEXT NOT NULL,
    PRIMARY KEY (run, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_kind ON events (run, kind, at);
CREATE TABLE series (
    key INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
    stage TEXT NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL,
    count INTEGER NOT NULL DEFAULT 0, last_step INTEGER, last_value REAL, last_t REAL,
    UNIQUE (run, stage, name)
) STRICT;
CREATE TABLE points (
    series INTEGER NOT NULL REFERENCES series (key) ON DELETE CASCADE, at INTEGER NOT NULL, attempt INTEGER NOT NULL,
    step INTEGER, t REAL NOT NULL, value REAL,
    PRIMARY KEY (series, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
    run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE, source TEXT NOT NULL, tag TEXT NOT NULL,
    step INTEGER NOT NULL, stage TEXT, t REAL NOT NULL, dir TEXT NOT NULL, bytes INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (run, source, tag, step)
) STRICT, WITHOUT ROWID;
CREATE TABLE sources (
    run INTEGER PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE, inode INTEGER NOT NULL, offset INTEGER NOT NULL,
    generation INTEGER NOT NULL, damaged_lines INTEGER NOT NULL
) STRICT;
CREATE VIEW metrics AS
    SELECT runs.id AS run, series.stage, series.name, points.attempt, points.step, points.t, points.value
    FROM points JOIN series ON series.key = points.series JOIN runs ON runs.key = series.run;
""")


def ledger_001_initial(connection: sqlite3.Connection) -> None:
    """What was decided (written before it is done) and what was really launched.

    An intent with `settled` NULL is finished by the next console start. Money is derived: hours times `usd_per_hour`,
    which is 0 on this machine.
    """
    _run_script(connection, """
CREATE TABLE intents (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, attempt INTEGER NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    detail TEXT NOT NULL, created REAL NOT NULL, settled REAL, outcome TEXT,
    UNIQUE (run, attempt, action)
) STRICT;
CREATE TABLE attempts (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, target TEXT NOT NULL, path TEXT NOT NULL, launched REAL NOT NULL,
    usd_per_hour REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (run, attempt)
) STRICT, WITHOUT ROWID;
""")


def ledger_002_rentals(connection: sqlite3.Connection) -> None:
    """Rented machines: one row per life, its journal, and every pod name that a create was ever sent with.

    A row that is neither 'gone' nor 'never' may be costing money; the next console start goes on with it.
    """
    _run_script(connection, """
CREATE TABLE rentals (
    id TEXT PRIMARY KEY, run TEXT NOT NULL, provider TEXT NOT NULL, phase TEXT NOT NULL, budget_usd REAL NOT NULL,
    budget_hours REAL NOT NULL, created REAL NOT NULL, name TEXT NOT NULL, pod TEXT NOT NULL,
    usd_per_hour REAL NOT NULL, deadline REAL NOT NULL, posted REAL, started REAL, ended REAL, seen REAL,
    seen_elapsed REAL, billed_usd REAL, address TEXT NOT NULL, reason TEXT NOT NULL, note TEXT NOT NULL,
    since REAL NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL, end_asked TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE INDEX rentals_by_run ON rentals (run, created);
CREATE TABLE rental_steps (
    id INTEGER PRIMARY KEY, rental TEXT NOT NULL, at REAL NOT NULL, phase TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE INDEX rental_steps_by_rental ON rental_steps (rental, id);
CREATE TABLE rental_names (name TEXT PRIMARY KEY, rental TEXT NOT NULL) STRICT, WITHOUT ROWID;
""")


def ledger_003_holds(connection: sqlite3.Connection) -> None:
    """What the pod's own timer is known to say, and the time that a failed run's machine is kept.

    A timer that differs from the `deadline` is still to be moved.
    """
    _run_script(connection, """
ALTER TABLE rentals ADD COLUMN armed REAL NOT NULL DEFAULT 0;
ALTER TABLE rentals ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE rentals ADD COLUMN hold_s REAL NOT NULL DEFAULT 0;
ALTER TABLE rentals ADD COLUMN proof TEXT NOT NULL DEFAULT '';
UPDATE rentals SET armed = deadline
""")


RUNLOG: tuple[Step, ...] = (runlog_001_initial,)
LEDGER: tuple[Step, ...] = (ledger_001_initial, ledger_002_rentals, ledger_003_holds)

"""The ledger's rows: what was decided, written before it is done, and what was really launched.

An intent without an outcome survives every crash and is carried out by the next start of the console. It does not carry
anything out itself: `console.operator` does.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from console.jsontext import dump
from console.runlog.db import transaction

START, RESUME, STOP, KILL = "start", "resume", "stop", "kill"
FAILED, CANCELLED = "failed: ", "cancelled before the launch"  # outcomes, beside "launched" and "signalled"


@dataclass(frozen=True)
class Intent:
    """One decision. `outcome` is None while it waits to be carried out."""

    id: int
    run: str
    attempt: int
    action: str
    target: str
    detail: dict[str, Any]
    created: float
    outcome: str | None


@dataclass(frozen=True)
class Attempt:
    """One launch of one run that really happened."""

    run: str
    attempt: int
    target: str
    path: str
    launched: float
    usd_per_hour: float


_INTENT = "SELECT id, run, attempt, action, target, detail, created, outcome FROM intents "
_LAUNCHES = f"WHERE action IN ('{START}', '{RESUME}') "
_ATTEMPT = "SELECT run, attempt, target, path, launched, usd_per_hour FROM attempts "


class Ledger:
    """Reads and writes ledger.db. `reader` gives a connection to read with, `writer` one to write with or None."""

    def __init__(self, reader: Callable[[], sqlite3.Connection], writer: Callable[[], sqlite3.Connection],
                 guard: threading.RLock) -> None:
        self._reader, self._writer, self._guard = reader, writer, guard

    def intend(self, run: str, attempt: int, action: str, target: str, detail: dict[str, Any]) -> Intent:
        """Write a decision down, or find it written already: the same run, attempt and action is the same decision."""
        with self._guard, transaction(self._writer()) as db:
            db.execute("INSERT OR IGNORE INTO intents (run, attempt, action, target, detail, created) "
                       "VALUES (?,?,?,?,?,?)", (run, attempt, action, target, dump(detail), time.time()))
            row = db.execute(_INTENT + "WHERE run=? AND attempt=? AND action=?", (run, attempt, action)).fetchone()
        return _intent(row)

    def settle(self, intent: Intent, outcome: str) -> None:
        """The intent is carried out, or will never be; `outcome` says which in words."""
        with self._guard, transaction(self._writer()) as db:
            db.execute("UPDATE intents SET settled=?, outcome=? WHERE id=?", (time.time(), outcome, intent.id))

    def launched(self, intent: Intent, path: str, usd_per_hour: float = 0.0) -> None:
        """The intent's attempt runs: its record and the intent's outcome in one commit."""
        with self._guard, transaction(self._writer()) as db:
            db.execute("INSERT OR IGNORE INTO attempts VALUES (?,?,?,?,?,?)",
                       (intent.run, intent.attempt, intent.target, path, time.time(), usd_per_hour))
            db.execute("UPDATE intents SET settled=?, outcome='launched' WHERE id=?", (time.time(), intent.id))

    def pending(self) -> list[Intent]:
        """Decisions that nobody knows to be carried out, oldest first."""
        return [_intent(row) for row in self._reader().execute(_INTENT + "WHERE outcome IS NULL ORDER BY id")]

    def intents(self, run: str) -> list[Intent]:
        return [_intent(row) for row in self._reader().execute(_INTENT + "WHERE run = ? ORDER BY id", (run,))]

    def last_launch(self, run: str) -> Intent | None:
        """The newest decision to start or resume this run."""
        newest = _INTENT + _LAUNCHES + "AND run = ? ORDER BY attempt DESC LIMIT 1"
        row = self._reader().execute(newest, (run,)).fetchone()
        return _intent(row) if row else None

    def last_launches(self) -> dict[str, Intent]:
        """The newest decision to start or resume, for each run."""
        return {row[1]: _intent(row) for row in self._reader().execute(_INTENT + _LAUNCHES + "ORDER BY attempt")}

    def last_attempts(self) -> dict[str, Attempt]:
        """The newest attempt of each run."""
        rows = self._reader().execute(_ATTEMPT + "ORDER BY attempt")
        return {row[0]: Attempt(*row) for row in rows}

    def last_attempt(self, run: str) -> Attempt | None:
        row = self._reader().execute(_ATTEMPT + "WHERE run = ? ORDER BY attempt DESC LIMIT 1", (run,)).fetchone()
        return Attempt(*row) if row else None


def _intent(row: Any) -> Intent:
    return Intent(*(*row[:5], json.loads(row[5]), *row[6:]))

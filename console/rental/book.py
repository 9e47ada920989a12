"""The ledger's rows of rented machines: every change of a life in one durable commit, with its line in the journal.

It decides nothing. A row is written before the effect that it announces, so whatever is killed, the next start knows
what may have happened.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from console.errors import NotFound
from console.jsontext import dump
from console.rental.rental import Phase, Rental
from console.runlog.db import transaction

_NAMES = tuple(f.name for f in fields(Rental))
_SELECT = f"SELECT {', '.join(_NAMES)} FROM rentals "
_INSERT = f"INSERT OR IGNORE INTO rentals ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"
_UPDATE = f"UPDATE rentals SET {', '.join(f'{name} = ?' for name in _NAMES[1:])} WHERE id = ?"


@dataclass(frozen=True)
class Entry:
    """One line of a rental's journal."""

    rental: str
    at: float
    phase: str
    text: str


class RentalBook:
    """Reads and writes the rows. `reader` gives a connection to read with, `writer` one to write with."""

    def __init__(self, reader: Callable[[], sqlite3.Connection], writer: Callable[[], sqlite3.Connection],
                 guard: threading.RLock) -> None:
        self._reader, self._writer, self._guard = reader, writer, guard

    def open(self, rental: Rental) -> Rental:
        """Write a new rental down, or find it written already: the same id is the same rental."""
        with self._guard, transaction(self._writer()) as db:
            if db.execute(_INSERT, _values(rental)).rowcount:
                _journal(db, rental, rental.created, rental.note or str(rental.phase))
            return _rental(db.execute(_SELECT + "WHERE id = ?", (rental.id,)).fetchone())

    def change(self, rental_id: str, at: float, *, expect: Collection[Phase] = (), **values: Any) -> Rental:
        """Change some fields, the rest as it is in the file now. A new phase or note becomes a line of the journal.

        With `expect`, nothing is changed when somebody else has moved it to another phase meanwhile.
        """
        with self._guard, transaction(self._writer()) as db:
            before = _rental(db.execute(_SELECT + "WHERE id = ?", (rental_id,)).fetchone())
            if expect and before.phase not in expect:
                return before
            if values.get("phase", before.phase) is not before.phase:
                values = {"since": at, "tries": 0, "next_try": 0.0, "note": "", **values}
            after = replace(before, **values)
            if after != before:
                db.execute(_UPDATE, (*_values(after)[1:], rental_id))
                if after.phase is not before.phase or after.note != before.note:
                    text = " · ".join(part for part in (after.note, after.reason) if part)
                    _journal(db, after, at, text)
            return after

    def get(self, rental_id: str) -> Rental:
        """Raises NotFound."""
        row = self._reader().execute(_SELECT + "WHERE id = ?", (rental_id,)).fetchone()
        if row is None:
            raise NotFound(f"the ledger knows no rental {rental_id!r}")
        return _rental(row)

    def all(self, limit: int = 1000) -> list[Rental]:
        """The newest first."""
        return [_rental(row) for row in self._reader().execute(_SELECT + "ORDER BY created DESC LIMIT ?", (limit,))]

    def unsettled(self) -> list[Rental]:
        """Rentals whose end the provider has not confirmed, oldest first."""
        where = f"WHERE phase NOT IN ('{Phase.GONE}', '{Phase.NEVER}') ORDER BY created"
        return [_rental(row) for row in self._reader().execute(_SELECT + where)]

    def of_run(self, run: str) -> Rental | None:
        """The newest rental of a run."""
        where = "WHERE run = ? ORDER BY created DESC LIMIT 1"
        row = self._reader().execute(_SELECT + where, (run,)).fetchone()
        return _rental(row) if row else None

    def named(self, pod_name: str) -> Rental | None:
        """The rental that asked for a pod of this name, at any time."""
        row = self._reader().execute(
            _SELECT + "WHERE id = (SELECT rental FROM rental_names WHERE name = ?)", (pod_name,)).fetchone()
        return _rental(row) if row else None

    def journal(self, rental_id: str | None = None, limit: int = 200) -> list[Entry]:
        """What happened, oldest first; of all rentals without an id."""
        rows = self._reader().execute("SELECT rental, at, phase, text FROM rental_steps WHERE ?1 IS NULL OR "
                                      "rental = ?1 ORDER BY id DESC LIMIT ?2", (rental_id, limit)).fetchall()
        return [Entry(*row) for row in reversed(rows)]


def _journal(db: sqlite3.Connection, rental: Rental, at: float, text: str) -> None:
    db.execute("INSERT INTO rental_steps (rental, at, phase, text) VALUES (?,?,?,?)",
               (rental.id, at, str(rental.phase), text))
    if rental.name:
        db.execute("INSERT OR IGNORE INTO rental_names VALUES (?,?)", (rental.name, rental.id))


def _values(rental: Rental) -> tuple[Any, ...]:
    found = {name: getattr(rental, name) for name in _NAMES}
    return tuple({**found, "phase": str(rental.phase), "detail": dump(dict(rental.detail))}.values())


def _rental(row: Any) -> Rental:
    found = dict(zip(_NAMES, row, strict=True))
    return Rental(**{**found, "phase": Phase(found["phase"]), "detail": json.loads(found["detail"])})

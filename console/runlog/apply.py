"""What one event changes in the run log's tables, as SQL inside the caller's transaction.

It does not read files and does not commit: `console.runlog.ingest` does both. An event kind that this program does not
know is kept as it is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from console.jsontext import dump
from engine.events import Event

_ENDINGS = ("finished", "failed", "stopped")
_NUMBERS = (float, int)  # by their own type: a bool is none, and a function call for each of millions is felt
_Point = tuple[int, int, "int | None", float, float]  # at, attempt, step, t, value


def describe(connection: sqlite3.Connection, run_id: str, target: str, path: str,
             description: Mapping[str, Any]) -> int:
    """Put a run and its stages, as run.json has them, into the tables; its key. Knows a run again by its id."""
    row = (target, path, str(description.get("recipe", "")), str(description.get("title", "")),
           float(description.get("created") or 0.0), str(description.get("software", "")), dump(description))
    connection.execute(
        "INSERT INTO runs (id, target, path, recipe, title, created, software, description) VALUES (?,?,?,?,?,?,?,?) "
        "ON CONFLICT (id) DO UPDATE SET target=excluded.target, path=excluded.path", (run_id, *row))
    key = connection.execute("SELECT key FROM runs WHERE id = ?", (run_id,)).fetchone()[0]
    _ensure_stages(connection, key, description)
    return int(key)


def forget(connection: sqlite3.Connection, key: int) -> None:
    """Drop what the run's events said, to read them again from the first byte."""
    for table in ("events", "series", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (key,))
    connection.execute("UPDATE stages SET state='waiting', attempt=0, started=NULL, ended=NULL, seconds=NULL, "
                       "exit_code=NULL, reason=NULL, resumed=0, done=NULL, total=NULL, unit=NULL, eta_s=NULL, "
                       "config='{}' WHERE run=?", (key,))
    connection.execute("UPDATE runs SET attempt=0, reported=NULL, started=NULL, ended=NULL, exit_code=NULL, "
                       "reason=NULL, last_event=NULL, last_stage=NULL WHERE key = ?", (key,))


class Applier:
    """Applies events of one run inside one transaction: `flush` before its commit, a new one after it or a rollback.

    The points of a curve wait until `flush`, because writing them together is several times faster than one by one.
    """

    def __init__(self, connection: sqlite3.Connection, key: int) -> None:
        self._db, self._run = connection, key
        self._series: dict[tuple[str, str], int] = {}
        self._points: dict[int, list[_Point]] = {}
        self._last_event, self._attempt = 0.0, 0
        self._kinds: dict[str, Callable[[Event], None]] = {
            "run": self._on_run, "stage": self._on_stage, "config": self._on_config, "checkpoint": self._on_checkpoint}

    def apply(self, event: Event, at: int) -> int:
        """Put one event in; about how many rows that takes. Raises ValueError for an event without a time."""
        if event.t != event.t:
            raise ValueError("an event's time is not a number")
        rows = 0
        if event.kind in ("metric", "eval", "system"):
            rows = self._numbers(event, at)
        elif event.kind in self._kinds:
            self._kinds[event.kind](event)
        if event.kind != "metric" and not _is_progress(event):
            row = (self._run, at, event.attempt, event.t, event.kind, event.stage, event.step, dump(event.data))
            self._db.execute("INSERT OR REPLACE INTO events VALUES (?,?,?,?,?,?,?,?)", row)
        self._last_event, self._attempt = max(self._last_event, event.t), max(self._attempt, event.attempt)
        return rows + 1

    def flush(self) -> None:
        """Write what is waiting: the points, what their curves have come to, and when the run was last heard of."""
        for series, points in self._points.items():
            if not points:
                continue
            fresh = self._db.executemany(f"INSERT OR IGNORE INTO points VALUES ({series},?,?,?,?,?)", points).rowcount
            _, _, step, t, value = points[-1]
            self._db.execute("UPDATE series SET count=count+?, last_step=?, last_value=?, last_t=? WHERE key=?",
                             (fresh, step, value, t, series))
            points.clear()
        self._db.execute("UPDATE runs SET last_event = max(coalesce(last_event, 0), ?), attempt = max(attempt, ?) "
                         "WHERE key = ?", (self._last_event, self._attempt, self._run))

    def _on_run(self, event: Event) -> None:
        data, state = event.data, event.data.get("state")
        if state == "started":
            _ensure_stages(self._db, self._run, data)
            self._db.execute("UPDATE stages SET state='stopped' WHERE run=? AND state='started'", (self._run,))
            self._db.execute("UPDATE runs SET reported='started', started=coalesce(started, ?), ended=NULL, "
                             "exit_code=NULL, reason=NULL WHERE key=?", (event.t, self._run))
        elif state in _ENDINGS:
            self._db.execute("UPDATE runs SET reported=?, ended=?, exit_code=?, reason=? WHERE key=?",
                             (state, event.t, _integer(data.get("exit_code")), _text(data.get("reason")), self._run))

    def _on_stage(self, event: Event) -> None:
        data, state, stage = event.data, event.data.get("state"), event.stage or ""
        where = (self._run, stage)
        if state == "progress":
            self._db.execute("UPDATE stages SET done=?, total=?, unit=?, eta_s=? WHERE run=? AND id=?",
                             (_real(data.get("done")), _real(data.get("total")), _text(data.get("unit")),
                              _real(data.get("eta_s")), *where))
            return
        _ensure_stage(self._db, self._run, stage, int(data.get("index") or 0), stage.partition("-")[2] or stage,
                      str(data.get("title") or stage), {})
        if state == "started":
            self._db.execute("UPDATE stages SET state='started', attempt=?, started=?, ended=NULL, seconds=NULL, "
                             "exit_code=NULL, reason=NULL, resumed=?, done=NULL, total=NULL, eta_s=NULL, log=? "
                             "WHERE run=? AND id=?",
                             (event.attempt, event.t, int(bool(data.get("resumed"))), _text(data.get("log")), *where))
            self._db.execute("UPDATE runs SET last_stage=? WHERE key=?", (stage, self._run))
        elif state == "skipped":  # done by an earlier attempt, as its own events said
            self._db.execute("UPDATE stages SET state='skipped', ended=? WHERE run=? AND id=? AND state != 'finished'",
                             (event.t, *where))
        elif state in _ENDINGS:
            self._db.execute("UPDATE stages SET state=?, ended=?, seconds=coalesce(?, seconds), exit_code=?, reason=?, "
                             "eta_s=NULL, log=coalesce(?, log) WHERE run=? AND id=?",
                             (state, event.t, _real(data.get("seconds")), _integer(data.get("exit_code")),
                              _text(data.get("reason")), _text(data.get("log")), *where))

    def _on_config(self, event: Event) -> None:
        found = self._db.execute("SELECT config FROM stages WHERE run=? AND id=?", (self._run, event.stage)).fetchone()
        if found:
            merged = {**json.loads(found[0]), **event.data}
            self._db.execute("UPDATE stages SET config=? WHERE run=? AND id=?", (dump(merged), self._run, event.stage))

    def _on_checkpoint(self, event: Event) -> None:
        data = event.data
        self._db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?,?,?,?,?,?,?,?,?)",
                         (self._run, str(data.get("source", "")), str(data.get("tag", "")), event.step or 0,
                          event.stage, event.t, str(data.get("dir", "")), _integer(data.get("bytes")) or 0,
                          str(data.get("manifest") or "")))

    def _numbers(self, event: Event, at: int) -> int:
        """Every number of the event becomes a point of the curve with its name."""
        stage, rows = event.stage or "", 0
        where = at, event.attempt, event.step, event.t
        for name, value in _flat(event.data) if "gpus" in event.data else event.data.items():
            if type(value) in _NUMBERS:
                series = self._series.get((stage, name)) or self._new_series(stage, name, event.kind)
                self._points[series].append((*where, float(value)))
                rows += 1
        return rows

    def _new_series(self, stage: str, name: str, source: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO series (run, stage, name, source) VALUES (?,?,?,?)",
                         (self._run, stage, name, source))
        key: int = self._db.execute("SELECT key FROM series WHERE run=? AND stage=? AND name=?",
                                    (self._run, stage, name)).fetchone()[0]
        self._series[stage, name] = key
        self._points[key] = []
        return key


def _ensure_stages(connection: sqlite3.Connection, run: int, description: Mapping[str, Any]) -> None:
    """The stages that run.json or a run's first event lists, where they are not known yet."""
    for position, stage in enumerate(description.get("stages") or (), 1):
        _ensure_stage(connection, run, str(stage["id"]), position, str(stage.get("stage", "")),
                      str(stage.get("title", "")), stage.get("args") or {})


def _ensure_stage(connection: sqlite3.Connection, run: int, id: str, position: int, stage: str, title: str,
                  args: Mapping[str, Any]) -> None:
    connection.execute("INSERT OR IGNORE INTO stages (run, id, position, stage, title, args) VALUES (?,?,?,?,?,?)",
                       (run, id, position, stage, title or stage, dump(args)))


def _is_progress(event: Event) -> bool:
    return event.kind == "stage" and event.data.get("state") == "progress"


def _flat(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The event's values by name; those of several GPUs get names such as gpu0_power_w."""
    gpus = data.get("gpus")
    flat = [(name, value) for name, value in data.items() if name != "gpus"]
    for gpu in gpus if isinstance(gpus, list) else ():
        flat += [(f"gpu{gpu.get('index', 0)}_{name}", value) for name, value in gpu.items() if name != "index"]
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _real(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _integer(value: Any) -> int | None:
    return int(value) if _is_number(value) and value == value and abs(value) < 2**63 else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


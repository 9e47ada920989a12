"""Every question that a screen or a verb asks the run log, answered with frozen records.

Read-only and safe from any thread. It says what the events said; whether a run is alive is not in any database and is
`console.operator`'s to find out. All text here is as it came: clean it before it reaches a terminal.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.jsontext import revive
from console.runlog.db import Readers


@dataclass(frozen=True)
class Run:
    """One run as its events tell it. `reported` is the last state that the supervisor wrote, None before the first."""

    id: str
    target: str
    path: str
    recipe: str
    title: str
    created: float
    software: str
    attempt: int
    reported: str | None  # started | finished | failed | stopped
    started: float | None
    ended: float | None
    exit_code: int | None
    reason: str | None
    last_event: float | None
    last_stage: str | None  # the stage id that is running, or that ran last
    stages_done: int
    stages_total: int
    attached: str | None  # the machine of a run that others started and that is only followed; None for our own


@dataclass(frozen=True)
class Stage:
    """One stage of one run. `state`: waiting | started | finished | failed | stopped | skipped."""

    id: str
    position: int
    stage: str
    title: str
    args: dict[str, Any]
    state: str
    attempt: int
    started: float | None
    ended: float | None
    seconds: float | None
    exit_code: int | None
    reason: str | None
    resumed: bool
    done: float | None
    total: float | None
    unit: str | None
    eta_s: float | None
    log: str | None
    config: dict[str, Any]

    @property
    def fraction(self) -> float | None:
        """0.0 to 1.0, or None while the stage has not said how far it is."""
        if self.state in ("finished", "skipped"):
            return 1.0
        if not self.total or self.done is None:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)


@dataclass(frozen=True)
class Latest:
    """The newest value of one curve; `value` may be NaN or infinite."""

    name: str
    step: int | None
    value: float
    t: float
    count: int


@dataclass(frozen=True)
class Eval:
    """Results at one step: numbers by name, plus whatever words came along."""

    stage: str | None
    step: int | None
    t: float
    values: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    stage: str | None
    step: int | None
    t: float
    prompt: str
    text: str


@dataclass(frozen=True)
class Checkpoint:
    source: str  # base | mid | sft | rl
    tag: str
    step: int
    stage: str | None
    t: float
    dir: str
    bytes: int
    manifest: str


@dataclass(frozen=True)
class RunEvent:
    """One event other than a metric. For alerts `data` has level, code, text, next."""

    run: str
    at: int  # byte offset of its line in events.jsonl: the order of events within a run
    attempt: int
    t: float
    kind: str
    stage: str | None
    step: int | None
    data: dict[str, Any]


@dataclass(frozen=True)
class SystemFacts:
    """The machine at one moment, as the box reported it (see `engine.events`, kind system)."""

    t: float
    data: dict[str, Any]


ATTACHED = "attached"  # the key of run.json that says what is followed, in a run that others started
REPLAYED = "replayed"  # the key that says what is played again, and how fast
_RUN = f"""
SELECT runs.id, target, path, recipe, runs.title, created, software, runs.attempt, reported, runs.started, runs.ended,
       runs.exit_code, runs.reason, last_event, last_stage,
       (SELECT count(*) FROM stages WHERE run = runs.key AND state IN ('finished', 'skipped')),
       (SELECT count(*) FROM stages WHERE run = runs.key), json_extract(description, '$.{ATTACHED}.target')
FROM runs
"""
_STAGE = """
SELECT stages.id, position, stage, stages.title, args, state, stages.attempt, stages.started, stages.ended, seconds,
       stages.exit_code, stages.reason, resumed, done, total, unit, eta_s, log, config
FROM stages JOIN runs ON runs.key = stages.run WHERE runs.id = ? ORDER BY position
"""
_EVENT = """
SELECT runs.id, at, events.attempt, t, kind, stage, step, data FROM events JOIN runs ON runs.key = events.run
"""


class Queries:
    """Reads runlog.db. Every method is one short query; call them from worker threads freely."""

    def __init__(self, path: Path) -> None:
        self._readers = Readers(path)

    def close(self) -> None:
        self._readers.close()

    def connection(self) -> sqlite3.Connection:
        """This thread's read-only connection, for `Series` and `query`."""
        return self._readers.get()

    def data_version(self) -> int:
        """Changes when another connection has committed something: cheap to poll (about 0.01 ms)."""
        return int(self._one("PRAGMA data_version")[0])

    def runs(self, limit: int = 1000) -> list[Run]:
        """The newest runs first."""
        return [Run(*row) for row in self._all(_RUN + "ORDER BY created DESC, runs.key DESC LIMIT ?", limit)]

    def run(self, run_id: str) -> Run | None:
        row = self._one(_RUN + "WHERE runs.id = ?", run_id)
        return Run(*row) if row else None

    def description(self, run_id: str) -> dict[str, Any]:
        """run.json as it was when the run was found; {} for an unknown run."""
        row = self._one("SELECT description FROM runs WHERE id = ?", run_id)
        return json.loads(row[0]) if row else {}

    def stages(self, run_id: str) -> list[Stage]:
        return [_stage(row) for row in self._all(_STAGE, run_id)]

    def metric_names(self, run_id: str, stage: str | None = None, source: str | None = None) -> list[str]:
        """Names of the curves of one stage or of the whole run; `source` is metric, eval or system, None means all."""
        rows = self._all("SELECT DISTINCT name FROM series JOIN runs ON runs.key = series.run "
                         "WHERE runs.id = ?1 AND (?2 IS NULL OR stage = ?2) AND (?3 IS NULL OR source = ?3) "
                         "ORDER BY name", run_id, stage, source)
        return [row[0] for row in rows]

    def latest_metrics(self, run_id: str, stage: str) -> dict[str, Latest]:
        """The newest value of each curve of one stage, by name."""
        rows = self._all("SELECT name, last_step, last_value, last_t, count FROM series "
                         "JOIN runs ON runs.key = series.run WHERE runs.id = ? AND stage = ? ORDER BY name",
                         run_id, stage)
        return {row[0]: Latest(row[0], row[1], _number(row[2]), row[3], row[4]) for row in rows}

    def evals(self, run_id: str, stage: str | None = None) -> list[Eval]:
        """All results, oldest first."""
        return [Eval(e.stage, e.step, e.t, revive(e.data)) for e in self.events(run_id, kinds=("eval",), stage=stage)]

    def samples(self, run_id: str, stage: str | None = None, limit: int = 100) -> list[Sample]:
        """The newest `limit` texts that the model wrote while it learned, oldest first."""
        found = self.events(run_id, kinds=("sample",), stage=stage, limit=limit)
        return [Sample(e.stage, e.step, e.t, str(e.data.get("prompt", "")), str(e.data.get("text", ""))) for e in found]

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        """Newest first."""
        rows = self._all("SELECT source, tag, step, stage, t, dir, bytes, manifest FROM checkpoints "
                         "JOIN runs ON runs.key = checkpoints.run WHERE runs.id = ? ORDER BY t DESC, step DESC", run_id)
        return [Checkpoint(*row) for row in rows]

    def system_latest(self, run_id: str) -> SystemFacts | None:
        found = self.events(run_id, kinds=("system",), limit=1)
        return SystemFacts(found[0].t, found[0].data) if found else None

    def alerts(self, run_id: str | None = None, limit: int = 100) -> list[RunEvent]:
        """The newest alerts of one run, or of all, oldest first."""
        return self.events(run_id, kinds=("alert",), limit=limit)

    def events(self, run_id: str | None = None, *, kinds: Sequence[str] = (), stage: str | None = None,
               after: int = -1, limit: int = 1000) -> list[RunEvent]:
        """The newest `limit` events, oldest first; `after` is the `at` of the last one seen of this run.

        Metrics and a stage's progress are not here: see `Series`, `latest_metrics` and `stages`.
        """
        where: list[str] = ["at > ?"]
        values: list[Any] = [after]
        for condition, value in (("runs.id = ?", run_id), ("stage = ?", stage)):
            if value is not None:
                where.append(condition)
                values.append(value)
        if kinds:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values.extend(kinds)
        order = "at" if run_id is not None else "t"
        rows = self._all(f"{_EVENT} WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT ?", *values, limit)
        return [RunEvent(*(*row[:7], json.loads(row[7]))) for row in reversed(rows)]

    def _all(self, sql: str, *values: Any) -> list[Any]:
        return self._readers.get().execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> Any:
        return self._readers.get().execute(sql, values).fetchone()


def _stage(row: Sequence[Any]) -> Stage:
    return Stage(*(*row[:4], json.loads(row[4]), *row[5:12], bool(row[12]), *row[13:18], json.loads(row[18])))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


"""How `run metrics` prints newest values and whole curves."""

from __future__ import annotations

import difflib
import math

from console.cli.output import emit_json, line, note, table
from console.errors import NotFound
from console.runlog.queries import Queries
from console.workspace import Workspace

_POINTS = """
SELECT stage, step, t, value, points.attempt FROM points JOIN series ON series.key = points.series
JOIN runs ON runs.key = series.run WHERE runs.id = ?1 AND name = ?2 AND (?3 IS NULL OR stage = ?3) ORDER BY at
"""


def print_latest(workspace: Workspace, run_id: str, stage: str | None, as_json: bool) -> None:
    """The newest value of every metric, by stage."""
    queries = workspace.queries
    wanted = [stage_id(queries, run_id, stage)] if stage else [s.id for s in queries.stages(run_id)]
    latest = {name: queries.latest_metrics(run_id, name) for name in wanted}
    if as_json:
        emit_json({"run": run_id, "stages": {name: found for name, found in latest.items() if found}})
        return
    table(("stage", "metric", "step", "value", "points"),
          [(name, m.name, m.step, repr(m.value), m.count) for name, found in latest.items() for m in found.values()])


def print_curve(workspace: Workspace, run_id: str, stage: str | None, name: str, as_json: bool) -> None:
    """Every point of one metric, in the order in which it was measured."""
    queries = workspace.queries
    wanted = stage_id(queries, run_id, stage) if stage else None
    rows = queries.connection().execute(_POINTS, (run_id, name, wanted)).fetchall()
    if not rows:
        known = queries.metric_names(run_id, wanted)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise NotFound(f"{run_id} has no metric {name!r}" + (f" in {wanted}" if wanted else ""),
                       f"did you mean {close[0]}?" if close else f"it has: {', '.join(known) or 'none yet'}")
    if as_json:
        emit_json({"run": run_id, "name": name, "points": [
            {"stage": s, "step": step, "t": t, "value": math.nan if value is None else value, "attempt": attempt}
            for s, step, t, value, attempt in rows]})
        return
    line("stage\tstep\tvalue")
    for s, step, _, value, _ in rows:
        line(f"{s}\t{'' if step is None else step}\t{'NaN' if value is None else repr(value)}")
    note(f"{len(rows)} points")


def stage_id(queries: Queries, run_id: str, word: str) -> str:
    """The stage's id from its id or its name; the last one when a recipe uses a stage twice."""
    stages = queries.stages(run_id)
    matches = [s.id for s in stages if word.replace("-", "_") in (s.id.replace("-", "_"), s.stage)]
    if not matches:
        known = [s.id for s in stages]
        close = difflib.get_close_matches(word, [*known, *(s.stage for s in stages)], n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(known)}"
        raise NotFound(f"{run_id} has no stage {word!r}", hint)
    return matches[-1]

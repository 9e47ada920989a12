"""What a finished run achieved: a score per kind of question with a bar, then the other results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from console.runlog.queries import Eval, Stage
from console.text import clean_line
from console.widgets.numbers import clock, line_bar, short
from console.widgets.text_pane import pair


def scores(evals: Sequence[Eval]) -> dict[str, float]:
    """Newest score per task; tasks are the results with a slash in their name, such as chat/capital."""
    found = {}
    for result in evals:
        for name, value in result.values.items():
            if "/" in name and isinstance(value, (int, float)) and math.isfinite(value):
                found[name] = float(value)
    return found


def card_lines(evals: Sequence[Eval], stages: Sequence[Stage], width: int) -> list[Content]:
    """The card, best read top to bottom: how well it answers, how well it predicts, how long it took."""
    by_task = scores(evals)
    lines = [_score(name, value, width) for name, value in by_task.items()]
    for name, value in _best_bpb(evals, stages):
        lines.append(pair(clean_line(name, 16), f"{short(value, 4)} bpb", width, 17))
    spent = sum(stage.seconds or 0 for stage in stages)
    if spent:
        lines.append(pair("time", clock(spent), width, 17))
    return lines


def headline(by_task: Mapping[str, float]) -> str:
    """One figure for a title: the total if there is one, else the mean."""
    if not by_task:
        return ""
    total = next((v for k, v in by_task.items() if k.split("/")[-1] in ("all", "total", "mean")), None)
    value = total if total is not None else sum(by_task.values()) / len(by_task)
    return f"{value:.1%}"


def _score(name: str, value: float, width: int) -> Content:
    label = clean_line(name.split("/", 1)[-1].replace("_", " "), 16)
    room = max(min(width - 17 - 7, 14), 0)
    colour = "$text-success" if value >= 0.95 else ("$text-warning" if value >= 0.5 else "$text-error")
    full, rest = line_bar(value, room)
    return Content.assemble(label.ljust(17), (full, colour), (rest, "$foreground 18%"), f" {value:6.1%}")


def _best_bpb(evals: Sequence[Eval], stages: Sequence[Stage]) -> list[tuple[str, float]]:
    """Lowest validation bits per byte of each stage, in order."""
    found = []
    for stage in stages:
        values: list[Any] = [e.values.get("val_bpb") for e in evals if e.stage == stage.id]
        finite = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
        if finite:
            found.append((stage.title, min(finite)))
    return found

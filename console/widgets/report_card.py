"""What a finished run achieved: a score per kind of question with a bar, then the other results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from console.glance import Side
from console.report_compare import compare
from console.runlog.queries import Eval, Stage
from console.text import clean_line
from console.widgets.numbers import clock, line_bar, short
from console.widgets.text_pane import pair

_TOTALS = ("/all", "/total", "/mean")
_ONE_COLUMN = 14  # more kinds than this go side by side, without bars


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
    if len(lines) > _ONE_COLUMN:
        lines = _two_columns(by_task, width)
    for name, value in _best_bpb(evals, stages):
        lines.append(pair(clean_line(name, 16), f"{short(value, 4)} bpb", width, 17))
    spent = sum(stage.seconds or 0 for stage in stages)
    if spent:
        lines.append(pair("time", clock(spent), width, 17))
    return lines


def compared_lines(sides: Sequence[Side], strokes: Sequence[tuple[str, str]], width: int) -> list[Content]:
    """The cards of several runs, one result per line, the best of each in bold."""
    number = 8
    label = max(width - number * len(sides), 6)
    parts = [(f"{stroke:>{number}}", colour) for stroke, colour in strokes[:len(sides)]]
    lines = [Content.assemble(" " * label, *parts)]
    for row in compare(sides):
        cells = [("–" if value is None else _amount(row.name, value), "bold" if at == row.best else "")
                 for at, value in enumerate(row.values)]
        name = (_label(row.name, label - 1).ljust(label), "$foreground-muted")
        lines.append(Content.assemble(name, *((f"{text:>{number}}", style) for text, style in cells)))
    return lines


def _amount(name: str, value: float) -> str:
    if "/" in name:
        return f"{value:.1%}"
    return clock(value) if name.endswith(" seconds") else short(value, 4)


def headline(by_task: Mapping[str, float]) -> str:
    """One figure for a title: the total if there is one, else the mean."""
    if not by_task:
        return ""
    total = next((v for k, v in by_task.items() if k.endswith(_TOTALS)), None)
    value = total if total is not None else sum(by_task.values()) / len(by_task)
    return f"{value:.1%}"


def _two_columns(by_task: Mapping[str, float], width: int) -> list[Content]:
    """Two kinds per line; the total, if there is one, first and alone with its bar."""
    items = list(by_task.items())
    lines = [_score(*items.pop(0), width)] if items[0][0].endswith(_TOTALS) else []
    half, column = -(-len(items) // 2), max(width // 2 - 1, 8)
    for row in range(half):
        pair_of = [items[i] for i in (row, row + half) if i < len(items)]
        cells = [Content.assemble(_label(name, column - 7).ljust(column - 7), (f"{value:6.0%}", _colour(value)), " ")
                 for name, value in pair_of]
        lines.append(Content("  ").join(cells))
    return lines


def _label(name: str, limit: int) -> str:
    return clean_line(name.split("/", 1)[-1].replace("_", " "), limit)


def _colour(value: float) -> str:
    return "$text-success" if value >= 0.95 else ("$text-warning" if value >= 0.5 else "$text-error")


def _score(name: str, value: float, width: int) -> Content:
    room = max(min(width - 17 - 7, 14), 0)
    full, rest = line_bar(value, room)
    bar = (full, _colour(value)), (rest, "$foreground 18%")
    return Content.assemble(_label(name, 16).ljust(17), *bar, f" {value:6.1%}")


def _best_bpb(evals: Sequence[Eval], stages: Sequence[Stage]) -> list[tuple[str, float]]:
    """Lowest validation bits per byte of each stage, in order."""
    found = []
    for stage in stages:
        values: list[Any] = [e.values.get("val_bpb") for e in evals if e.stage == stage.id]
        finite = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
        if finite:
            found.append((stage.title, min(finite)))
    return found

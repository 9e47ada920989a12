"""The lines of the run picker."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from console.glance import RunRow
from console.screens.picker import Choice
from console.text import clean_line
from console.widgets.numbers import ago
from console.widgets.states import RUN


def run_choices(rows: Sequence[RunRow]) -> list[Choice]:
    """Newest first, with how each is."""
    now = time.time()
    return [Choice(row.run.id, _line(row, now), f"{row.run.id} {row.word} {row.run.title}") for row in rows]


def compare_choices(rows: Sequence[RunRow], front: str, chosen: Sequence[str]) -> list[Choice]:
    """Those that can be drawn beside the run in front, the drawn ones first: choosing one takes it away."""
    now, others = time.time(), [row for row in rows if row.run.id != front]
    others.sort(key=lambda row: row.run.id not in chosen)
    return [Choice(row.run.id, Content.assemble(("take away  " if row.run.id in chosen else "", "$text-warning"),
                                                _line(row, now)), f"{row.run.id} {row.word} {row.run.title}")
            for row in others]


def _line(row: RunRow, now: float) -> Content:
    glyph, colour = RUN.get(row.word, RUN["idle"])
    facts = f"{row.run.stages_done}/{row.run.stages_total} stages  {ago(row.run.created, now)}" + (
        "  not ours" if row.run.attached else "")
    return Content.assemble((f"{glyph} {row.word:<9}", colour), f" {clean_line(row.run.id, 44):<45}",
                            (facts, "$foreground-muted"))

"""The lines of the pickers of runs and recipes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from console.glance import RunRow
from console.screens.picker import Choice
from console.text import clean_line
from console.widgets.numbers import ago
from console.widgets.states import RUN

if TYPE_CHECKING:
    from engine.recipe import Recipe


def run_choices(rows: Sequence[RunRow], beside: Sequence[str] = ()) -> list[Choice]:
    """Newest first, with how each is; those that are drawn `beside` already come first, to be taken away."""
    now = time.time()
    return [Choice(row.run.id, Content.assemble(("take away  " if row.run.id in beside else "", "$text-warning"),
                                                _line(row, now)), f"{row.run.id} {row.word} {row.run.title}")
            for row in sorted(rows, key=lambda row: row.run.id not in beside)]


def recipe_choices(recipes: Sequence[Recipe]) -> list[Choice]:
    """What can be trained, with how long that takes where it was measured."""
    return [Choice(recipe.name, Content.assemble((f"{clean_line(recipe.name, 20):<14}", "bold"),
                                                 clean_line(recipe.summary, 160)), f"{recipe.name} {recipe.summary}")
            for recipe in recipes]


def path_choices(paths: Mapping[str, Path]) -> list[Choice]:
    """Where things lie; what is not there yet says so."""
    return [Choice(str(path), Content.assemble((f"{name:<12}", "$foreground-muted"), clean_line(str(path), 200),
                                               ("" if path.exists() else "  not there yet", "$foreground-muted")),
                   f"{name} {path}") for name, path in paths.items()]


def _line(row: RunRow, now: float) -> Content:
    glyph, colour = RUN.get(row.word, RUN["idle"])
    facts = f"{row.run.stages_done}/{row.run.stages_total} stages  {ago(row.run.created, now)}" + (
        "  not ours" if row.run.attached else "")
    return Content.assemble((f"{glyph} {row.word:<9}", colour), f" {clean_line(row.run.id, 44):<45}",
                            (facts, "$foreground-muted"))

"""What stands under the crosshair, as lines: every curve at one step, of one run or of several with the difference.

Names of curves as people read them live here too. Numbers are written as the run log has them, not rounded to fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.content import Content

from console.crosshair import StepFound, StepValues
from console.text import clean_line
from console.widgets.numbers import clock, grouped, short

TITLES = {"loss": "train loss", "reward": "reward", "val_bpb": "val bpb", "val_loss": "val loss", "core_metric": "CORE",
          "chatcore_metric": "ChatCORE", "pass@1": "pass@1", "sequence_length": "tokens per answer",
          "tok_per_sec": "tok/s", "mfu": "MFU",
          "lrm": "lr multiplier", "grad_norm": "gradient norm", "dt": "seconds per step", "cpu_percent": "cpu %",
          "rss_gb": "memory of the stage, GB"}
STROKES = (("━━", "$text-accent"), ("╍╍", "$text-warning"), ("┅┅", "$text-secondary"))
_LABEL, _NUMBER, _DIGITS = 24, 14, 9


def step_title(here: StepValues, started: float | None, per_step: float) -> str:
    """`step 4,120 · 31.2M tokens · 12:05`."""
    words = [f"step {grouped(here.step)}"]
    if per_step:
        words.append(f"{short((here.step + 1) * per_step)} tokens")
    if started is not None:
        words.append(clock(here.t - started))
    return " · ".join(words)


def legend(runs: Sequence[str], missing: int) -> Content:
    """Which line is which run; `missing` are those that have no such stage."""
    parts: list[Content | str | tuple[str, str]] = [" "]
    for number, (run, (stroke, colour)) in enumerate(zip(runs, STROKES, strict=False)):
        name = f" {clean_line(run, 40)}" + (" (this run)" if number == 0 else "") + "   "
        parts += [(stroke, colour), name]
    if missing > 0:
        parts.append((f"{missing} without this stage   ", "$text-warning"))
    return Content.assemble(*parts, ("c adds or takes away · esc ends", "$foreground-muted"))


def step_lines(found: StepFound, order: Sequence[str], width: int) -> list[Content]:
    """One line per curve, in the order of the charts; without other runs in two columns where there is room."""
    first = found.found[0]
    if first is None:
        return []
    names = [name for name in order if name in first.values]
    names += sorted(name for name in first.values if name not in order)
    if len(found.found) > 1:
        room = min(_NUMBER, (width - _LABEL) // (2 * len(found.found) - 1))
        return [_header(found, room), *(_compared(name, found, room) for name in names)]
    cells = [_alone(name, first) for name in names]
    column = _LABEL + _NUMBER + 16
    if width < 2 * column:
        return cells
    half = -(-len(cells) // 2)
    return [Content.assemble(left, " " * max(column - left.cell_length, 1), *cells[row + half:row + half + 1])
            for row, left in enumerate(cells[:half])]


def _alone(name: str, here: StepValues) -> Content:
    value, step = here.values[name]
    measured = _measured(step, here.step), "$foreground-muted"
    return Content.assemble(_label(name), f"{exact(value):>{_NUMBER}}", measured)


def _label(name: str) -> tuple[str, str]:
    return TITLES.get(name, clean_line(name, _LABEL - 1))[:_LABEL - 1].ljust(_LABEL), "$foreground-muted"


def _measured(step: int | None, here: int) -> str:
    """Where a value comes from, if not from this very step."""
    return f"  at {grouped(step)}" if step is not None and step != here else ""


def _header(found: StepFound, room: int) -> Content:
    parts: list[str | tuple[str, str]] = [" " * _LABEL]
    for (stroke, colour), here in zip(STROKES, found.found, strict=False):
        parts.append((f"{stroke + (f' {grouped(here.step)}' if here else ' none'):>{room}}", colour))
    for stroke, colour in STROKES[1:len(found.found)]:
        parts.append((f"{f'− {stroke}':>{room}}", colour))
    return Content.assemble(*parts)


def _compared(name: str, found: StepFound, room: int) -> Content:
    values = [here.values[name][0] if here and name in here.values else None for here in found.found]
    parts: list[str | tuple[str, str]] = [_label(name)]
    digits = max(min(_DIGITS, room - 5), 2)
    parts += [f"{'–' if value is None else exact(value, digits):>{room}}" for value in values]
    for other in values[1:]:
        apart = "" if values[0] is None or other is None else f"{values[0] - other:+.3g}"
        parts.append((f"{apart:>{room}}", "$foreground-muted"))
    return Content.assemble(*parts)


def exact(value: float, digits: int = _DIGITS) -> str:
    """As the run log has it, up to so many digits."""
    return f"{value:.{digits}g}" if math.isfinite(value) else short(value)

"""One live curve in a frame: its newest value, its range, spikes kept, gaps marked where the number was not finite.

It is given finished points (`console.runlog.series.Curve`, at most two per dot column) and asks nobody for data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip

from console.runlog.series import Curve
from console.widgets import axis, canvas
from console.widgets.canvas import Range
from console.widgets.numbers import compact, short
from console.widgets.pane import Pane

_HUGE = 1e290  # differences and a little room must stay finite
_EMPTY = Curve((), (), 0)
_KINDS = _LABEL, _BAND, _LINE, _MARK, _CROSS = "label", "band", "line", "mark", "cross"
_BESIDE = "other1", "other2"
_Cells = list[list[tuple[str, str]]]  # rows of (character or text, kind)


@dataclass(frozen=True)
class Beside:
    """The same curve of another run, below the first one: `last` its newest value, its own way to count x."""

    curve: Curve
    last: float | None = None
    x_zero: float = 0.0
    x_factor: float = 1.0


@dataclass(frozen=True)
class ChartView:
    """What to show and how; the x axis counts (x - x_zero) * x_factor: steps, tokens, or seconds since the start."""

    name: str = ""
    raw: Curve = _EMPTY
    smooth: Curve | None = None
    last: float | None = None
    log: bool = False
    robust: bool = False
    x_axis: str = "step"
    x_zero: float = 0.0
    x_factor: float = 1.0
    smoothing: float = 0.0
    waiting: str = "waiting for the first number"
    extra: str = ""  # a word beside the value, e.g. "%"
    least: float = 0.0  # smallest height of the range, as a share of its middle
    beside: tuple[Beside, ...] = ()  # at most two
    cross: float | None = None  # where the crosshair stands, counted as the axis counts
    at_cross: float | None = None  # the value there; shown instead of the newest


class Chart(Pane):
    """Draws a ChartView at whatever size it has, from nothing at all to a full screen."""

    DEFAULT_CSS = """
    Chart { min-width: 4; min-height: 3; }
    """
    COMPONENT_CLASSES: ClassVar = {f"chart--{kind}" for kind in (*_KINDS, *_BESIDE)}

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._view = ChartView()
        self._drawn: tuple[object, _Cells] | None = None
        self._styles: dict[str, Style] = {}

    @property
    def view(self) -> ChartView:
        return self._view

    def show(self, view: ChartView) -> None:
        """Draw this instead; costs nothing when it is what is shown already."""
        if view == self._view:
            return
        self._view = view
        last = view.last if view.cross is None else view.at_cross
        value = "" if last is None else f" {short(last, 4)}{view.extra}"
        self.set_title(Content.assemble(view.name, (value, "bold")), _mode(view) if view.name else "")
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        key = (self._view, width, height)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = (key, picture(self._view, width, height))
        rows = self._drawn[1]
        if not self._styles:
            base = self.rich_style
            self._styles = {kind: base + self.get_component_rich_style(f"chart--{kind}")
                            for kind in (*_KINDS, *_BESIDE)}
        segments = [Segment(text, self._styles[kind]) for text, kind in (rows[y] if y < len(rows) else [])]
        return Strip(segments).adjust_cell_length(width, self._styles[_LABEL])

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles = {}


def _mode(view: ChartView) -> str:
    words = [f"vs {short(other.last)}" for other in view.beside if other.last is not None and view.cross is None]
    words += [f"ema {view.smoothing:g}" if view.smoothing else "raw", "log" if view.log else "", "robust" * view.robust]
    return " · ".join(word for word in words if word)


def dot_columns(width: int) -> int:
    """How many columns of dots a chart of this inner width has beside its labels."""
    return max(2 * (width - 4), 8)


def picture(view: ChartView, width: int, height: int) -> _Cells:
    """The inside of the frame as rows of (text, kind) runs; never more than fits."""
    curves = [_placed(view, c, view.x_zero, view.x_factor) for c in (view.raw, view.smooth) if c is not None]
    others = [_placed(view, other.curve, other.x_zero, other.x_factor) for other in view.beside[:len(_BESIDE)]]
    shown = [curves[0], *others]
    values = [y for curve in shown for _, ys in curve.segments for y in ys]
    if width < 1 or height < 1:
        return []
    if not values:
        return _notice(view, width, height)
    low, high = axis.limits(values, robust=view.robust, least=0.0 if view.log else view.least)
    xs = [x for curve in shown for xs, _ in curve.segments for x in xs] + list(curves[0].gaps)
    x_limits = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 0.5, xs[0] + 0.5)
    with_x = height >= 4
    rows = height - with_x
    labels, label_width = _y_axis(view, low, high, rows, width)
    across = width - label_width
    kinds = _paint(curves, others, across, rows, x_limits, (low, high))
    _mark_gaps(kinds, curves[0].gaps, x_limits)
    _mark_cross(kinds, view.cross, x_limits)
    picture_rows = [[(label, _LABEL), *_runs(cells)] for label, cells in zip(labels, kinds, strict=True)]
    if with_x:
        picture_rows.append([(" " * label_width + _x_axis(view, x_limits, across), _LABEL)])
    return picture_rows


def _placed(view: ChartView, curve: Curve, zero: float, factor: float) -> Curve:
    """The curve counted as the axis counts, within what arithmetic bears, on a logarithmic scale if asked for.

    What is not positive has no place on a logarithmic scale and leaves a gap.
    """
    segments = []
    for xs, ys in curve.segments:
        kept = [((x - zero) * factor, min(max(y, -_HUGE), _HUGE)) for x, y in zip(xs, ys, strict=True)
                if y > 0 or not view.log]
        if view.log:
            kept = [(x, math.log10(y)) for x, y in kept]
        if kept:
            segments.append((tuple(x for x, _ in kept), tuple(y for _, y in kept)))
    return Curve(tuple(segments), tuple((gap - zero) * factor for gap in curve.gaps), curve.count)


def _notice(view: ChartView, width: int, height: int) -> _Cells:
    text = "no value above 0 for a log scale" if view.log and view.raw.segments else view.waiting
    if view.raw.gaps and not view.raw.segments:
        text = "not one finite number (NaN)"
    return [[] for _ in range((height - 1) // 2)] + [[(text[:width].center(width), _LABEL)]]


def _y_axis(view: ChartView, low: float, high: float, rows: int, width: int) -> tuple[list[str], int]:
    """The text left of each row, and its width; without room for numbers there are none."""
    wanted = max(2, min(6, rows // 3 + 1))
    if view.log:
        values = _log_ticks(low, high, wanted)
        texts = [compact(10**v) for v in values]
    else:
        values = axis.ticks(low, high, wanted)
        texts = axis.tick_labels(values)
    label_width = max(map(len, texts), default=0) + 1
    if rows < 2 or label_width > width // 2:
        return [""] * rows, 0
    labels = [" " * (label_width - 1) + "│"] * rows
    for value, text in zip(values, texts, strict=True):
        row = round((high - value) / (high - low) * (rows - 1))
        labels[row] = text.rjust(label_width - 1) + "┤"
    return labels, label_width


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    whole = [float(p) for p in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) >= 2:
        return whole[:: max(1, -(-len(whole) // count))]
    if low < -300 or high > 300:
        return whole
    return [math.log10(v) for v in axis.ticks(10**low, 10**high, count) if v > 0]


def _x_axis(view: ChartView, limits: tuple[float, float], width: int) -> str:
    label = axis.label_of(view.x_axis)
    left, middle, right = (label(x) for x in (limits[0], sum(limits) / 2, limits[1]))
    if left == right:
        return middle[:width].center(width)
    if len(left) + len(right) + 1 > width:
        return right[:width].rjust(width)
    line = left.ljust(width - len(right)) + right
    start = (width - len(middle)) // 2
    if start > len(left) + 1 and start + len(middle) + 1 < width - len(right):
        line = line[:start] + middle + line[start + len(middle):]
    return line


def _paint(curves: list[Curve], others: list[Curve], width: int, rows: int, x: Range, y: Range) -> _Cells:
    """Each row as (character, kind) cells: other runs lowest, then the raw band faint below the smoothed line, or
    alone and strong. What is painted later hides what is there, so that no cell has the colour of one run and the
    dots of another."""
    cells: _Cells = [[(" ", _LINE)] * width for _ in range(rows)]
    for number, curve in reversed(list(enumerate(others))):
        _over(cells, [canvas.dash(row, number + 1) for row in canvas.draw(curve.segments, width, rows, x, y)],
              _BESIDE[number])
    drawn = [canvas.draw(curve.segments, width, rows, x, y) for curve in curves]
    if len(drawn) == 1:
        _over(cells, drawn[0], _LINE)
        return cells
    for row, (under, over) in enumerate(zip(*drawn, strict=True)):
        for column, char in enumerate(canvas.merge(under, over)):
            if char != " ":
                cells[row][column] = (char, _BAND if over[column] == " " else _LINE)
    return cells


def _over(cells: _Cells, drawn: list[str], kind: str) -> None:
    for row, text in enumerate(drawn):
        for column, char in enumerate(text):
            if char != " ":
                cells[row][column] = (char, kind)


def _mark_cross(rows: _Cells, x: float | None, limits: Range) -> None:
    """A line through all rows where the crosshair is; a curve's own cell there shows its dots in the line's colour."""
    width = len(rows[0]) if rows else 0
    if x is None or not width or not limits[0] <= x <= limits[1]:
        return
    at = round((x - limits[0]) / (limits[1] - limits[0]) * (width - 1))
    for row in rows:
        row[at] = (row[at][0] if row[at][0] != " " else "│", _CROSS)


def _mark_gaps(rows: _Cells, gaps: tuple[float, ...], limits: Range) -> None:
    """A cross on the lowest row wherever a number was not finite."""
    for gap in gaps:
        at = round((gap - limits[0]) / (limits[1] - limits[0]) * (len(rows[-1]) - 1)) if rows and rows[-1] else -1
        if 0 <= at < len(rows[-1]):
            rows[-1][at] = ("×", _MARK)


def _runs(cells: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("".join(char for char, _ in group), kind) for kind, group in groupby(cells, key=lambda cell: cell[1])]

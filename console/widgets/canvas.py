"""Lines as Braille dots: the one place that calls the plotting library, and shields it from what it cannot bear.

plotext raises on infinities and on zero under a log scale, hides the first plot after an empty one, and fills memory
with the dots towards a point far outside. So it gets a fresh figure, linear scales, no axes, and every point as a
fraction of the limits, within 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual_plotext import Plot

Segment = tuple[Sequence[float], Sequence[float]]  # x and y of one unbroken line, finite
Range = tuple[float, float]

_BRAILLE = 0x2800


def draw(segments: Sequence[Segment], width: int, height: int, x: Range, y: Range) -> list[str]:
    """The segments as `height` rows of `width` characters, blanks as spaces; x and y are the limits of the axes.

    What lies above or below the limits is drawn on them.
    """
    segments = [segment for segment in segments if len(segment[0])]
    if width < 1 or height < 1:
        return []
    if not segments:
        return [" " * width] * height
    figure = Plot()
    figure.plotsize(width, height)
    figure._set_size(width, height)  # plotsize alone does not resize a figure of its own
    figure.theme("clear")
    figure.frame(False)
    figure.xfrequency(0)
    figure.yfrequency(0)
    figure.xlim(0, 1)
    figure.ylim(0, 1)
    for xs, ys in segments:
        figure.plot(_fractions(xs, x), _fractions(ys, y), marker="braille")
    rows = [row.replace("\x1b[0m", "") for row in figure.build().split("\n")]
    return [row[:width].ljust(width) for row in rows[:height]] + [" " * width] * (height - len(rows))


def _fractions(values: Sequence[float], limits: Range) -> list[float]:
    """Where values lie between the limits, from 0 to 1; beyond them at the edge, in the middle when there is no span.

    Halves first: the span of the largest and the smallest float is infinite.
    """
    low, span = limits[0] / 2, limits[1] / 2 - limits[0] / 2
    if not span > 0:
        return [0.5] * len(values)
    return [min(max((value / 2 - low) / span, 0.0), 1.0) for value in values]


# Which of six neighbouring columns of dots a line leaves out, so that runs differ by more than colour.
_DASHES = {1: (1, 1, 1, 1, 0, 0), 2: (1, 0, 1, 0, 1, 0)}
_LEFT, _RIGHT = 0x47, 0xB8  # the dots of a cell's two columns


def dash(row: str, kind: int) -> str:
    """A drawn row as a broken line: 1 dashes, 2 dots; blanks stay spaces."""
    pattern = _DASHES[kind]
    cells = []
    for column, char in enumerate(row):
        if ord(char) >= _BRAILLE:
            at = 2 * column % 6
            kept = ord(char) - _BRAILLE & (_LEFT * pattern[at] | _RIGHT * pattern[at + 1])
            char = chr(_BRAILLE | kept) if kept else " "
        cells.append(char)
    return "".join(cells)


def merge(below: str, above: str) -> str:
    """Two drawn rows as one: the dots of both."""
    return "".join(map(_both, below, above))


def _both(a: str, b: str) -> str:
    if b == " ":
        return a
    if a == " ":
        return b
    return chr(ord(a) | ord(b)) if ord(a) >= _BRAILLE and ord(b) >= _BRAILLE else b

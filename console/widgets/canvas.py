"""Lines as Braille dots: the one place that calls the plotting library, and shields it from what it cannot bear.

plotext raises on infinities and on zero under a log scale, hides the first plot after an empty one, and draws forever
towards a point far outside. So it gets a fresh figure, finite points inside the limits, linear scales and no axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual_plotext import Plot

Segment = tuple[Sequence[float], Sequence[float]]  # x and y of one unbroken line, finite, within the limits
Range = tuple[float, float]

_BRAILLE = 0x2800


def draw(segments: Sequence[Segment], width: int, height: int, x: Range, y: Range) -> list[str]:
    """The segments as `height` rows of `width` characters, blanks as spaces; x and y are the limits of the axes."""
    segments = [s for s in segments if len(s[0])]
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
    figure.xlim(*x)
    figure.ylim(*y)
    for xs, ys in segments:
        figure.plot(list(xs), list(ys), marker="braille")
    rows = [row.replace("\x1b[0m", "") for row in figure.build().split("\n")]
    return [row[:width].ljust(width) for row in rows[:height]] + [" " * width] * (height - len(rows))


def merge(below: str, above: str) -> str:
    """Two drawn rows as one: the dots of both."""
    return "".join(map(_both, below, above))


def _both(a: str, b: str) -> str:
    if b == " ":
        return a
    if a == " ":
        return b
    return chr(ord(a) | ord(b)) if ord(a) >= _BRAILLE and ord(b) >= _BRAILLE else b

"""Ranges and ticks of a chart's axes: pure arithmetic, no drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from console.widgets.numbers import clock, compact

X_AXES = ("step", "tokens", "time")


def label_of(axis: str) -> Callable[[float], str]:
    """How a position on this x axis is written."""
    if axis == "time":
        return clock
    return lambda value: compact(round(value))


def limits(values: Sequence[float], *, robust: bool = False, least: float = 0.0) -> tuple[float, float]:
    """The range that shows `values` (finite, at least one); `robust` leaves the outer hundredth on each side out.

    `least` is the smallest width, as a share of the middle: noise of one percent shall not fill the chart.
    """
    ordered = sorted(values)
    cut = len(ordered) // 100 if robust else 0
    if robust and len(ordered) >= 20:
        cut = max(cut, 1)
    low, high = ordered[cut], ordered[-1 - cut]
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.05 or 0.5
        return low - room, high + room
    missing = least * abs(low + high) / 2 - (high - low)
    return (low - missing / 2, high + missing / 2) if missing > 0 else (low, high)


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most `count` round numbers (1, 2 or 5 times a power of ten) inside the range, evenly spaced."""
    if count < 1 or not high > low:
        return []
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * (1 - 1e-9)), 10 * power)
    if not math.isfinite(step):
        return []
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)][:count]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels with just as many decimals as tell neighbours apart."""
    if not values:
        return []
    step = min((abs(b - a) for a, b in pairwise(values)), default=abs(values[0]) or 1.0)
    top = max(abs(v) for v in values)
    if top >= 10_000 or (top and top < 1e-3):
        texts = [compact(v) for v in values]
        return texts if len(set(texts)) == len(texts) else [f"{v:.6g}" for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    return [f"{v:.{min(decimals, 6)}f}" for v in values]

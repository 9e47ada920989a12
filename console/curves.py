"""The curves that are on screen: asked for by name and width, kept, and read on by what is new.

Everything here runs in the reader's thread; a screen gets finished points and never asks a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.runlog.series import Curve, Series

if TYPE_CHECKING:
    from console.runlog.queries import Queries


@dataclass(frozen=True)
class CurveWish:
    """One curve that a chart wants: x is "step" or "time", `columns` how many dots it is wide."""

    run: str
    stage: str
    name: str
    x: str
    smooth: float
    columns: int


@dataclass(frozen=True)
class Drawn:
    """The answer to a CurveWish."""

    wish: CurveWish
    raw: Curve
    smooth: Curve | None
    last: float | None


class CurveDesk:
    """Keeps the curves that are on screen, so that each look reads only what is new. For one thread."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._series: dict[tuple[str, str, str, str, float], Series] = {}

    def serve(self, wishes: tuple[CurveWish, ...]) -> dict[tuple[str, str], Drawn]:
        """Points for every wish, by run and name; curves that nobody wants any more are forgotten."""
        used: set[tuple[str, str, str, str, float]] = set()
        drawn = {}
        for wish in wishes:
            raw = self._fresh(wish, 0.0, used)
            smooth = self._fresh(wish, wish.smooth, used).points(wish.columns) if wish.smooth else None
            last = raw.last[1] if raw.last else None
            drawn[wish.run, wish.name] = Drawn(wish, raw.points(wish.columns), smooth, last)
        self._series = {key: series for key, series in self._series.items() if key in used}
        return drawn

    def _fresh(self, wish: CurveWish, smooth: float, used: set[tuple[str, str, str, str, float]]) -> Series:
        key = (wish.run, wish.stage, wish.name, wish.x, smooth)
        used.add(key)
        if key not in self._series:
            self._series[key] = Series(self._queries, wish.run, wish.stage, wish.name, x=wish.x, smooth=smooth)
        self._series[key].refresh()
        return self._series[key]

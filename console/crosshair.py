"""What every curve of a stage was at one step, exact as the run log has it, for one run or for several side by side.

Steps are found by the rows of one curve that each step has; the others are read at or before that row. Runs in the
reader's thread; which key moves the crosshair and how values look is a screen's business.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from console.runlog.queries import Queries

# The curve with a row at each step: the one with the most rows that training itself reported.
_MAIN = """
SELECT series.key, sources.generation FROM series JOIN runs ON runs.key = series.run
JOIN sources ON sources.run = runs.key WHERE runs.id = ? AND stage = ? AND source = 'metric'
ORDER BY count DESC, name = 'loss' DESC LIMIT 1
"""
_ALL = "SELECT series.key, name FROM series JOIN runs ON runs.key = series.run WHERE runs.id = ? AND stage = ?"
_AT = ("SELECT step, value FROM points WHERE series = ? AND at < ? AND (step IS NULL OR step <= ?) "
       "ORDER BY at DESC LIMIT 1")


@dataclass(frozen=True)
class Place:
    """A run's stage, and how its own steps become places on the shown axis: (x - zero) * factor."""

    run: str
    stage: str
    zero: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class StepWish:
    """`places` are the run in front and those beside it; `step` None is the newest; `move` goes on by measured steps.

    `by_time`: the axis is time, so places are found by when a step was, not by its number.
    """

    places: tuple[Place, ...]
    step: int | None
    move: int = 0
    by_time: bool = False


@dataclass(frozen=True)
class StepValues:
    """One run at one of its steps. `values` has, by name, the value and the step that it was measured at."""

    step: int
    t: float
    values: dict[str, tuple[float, int | None]]


@dataclass(frozen=True)
class StepFound:
    """The answer: by place what was found there, None for a run that was not so far or has no steps."""

    wish: StepWish
    found: tuple[StepValues | None, ...]


class StepDesk:
    """Keeps the steps of the runs that are looked at. For one thread."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._steps: dict[tuple[str, str], Steps] = {}

    def serve(self, wish: StepWish) -> StepFound:
        """Values at the wished step of the first place, and at the same place of the axis in the others."""
        self._steps = {(p.run, p.stage): self._steps.get((p.run, p.stage)) or Steps(self._queries, p.run, p.stage)
                       for p in wish.places}
        for steps in self._steps.values():
            steps.refresh()
        found: list[StepValues | None] = []
        x = 0.0
        for number, place in enumerate(wish.places):
            steps = self._steps[place.run, place.stage]
            at = steps.index(wish.step, wish.move) if number == 0 else steps.nearest(
                x / (place.factor or 1.0) + place.zero, wish.by_time)
            found.append(None if at is None else steps.values(at))
            if number == 0:
                if at is None:
                    break
                x = (steps.x(at, wish.by_time) - place.zero) * place.factor
        return StepFound(wish, (*found, *[None] * (len(wish.places) - len(found))))


class Steps:
    """The steps of one stage in order, those that a later attempt repeated only once."""

    def __init__(self, queries: Queries, run: str, stage: str) -> None:
        self._queries, self._identity = queries, (run, stage)
        self._source: tuple[int, int] | None = None
        self._reset()

    def _reset(self) -> None:
        self._numbers, self._at, self._t = array("q"), array("q"), array("d")
        self._read = -1

    def refresh(self) -> None:
        """Take in what came since the last call."""
        connection = self._queries.connection()
        source = connection.execute(_MAIN, self._identity).fetchone()
        if source != self._source:
            self._source = source
            self._reset()
        if source is None:
            return
        for step, at, t in connection.execute("SELECT step, at, t FROM points WHERE series = ? AND at > ? "
                                              "AND step IS NOT NULL ORDER BY at", (source[0], self._read)):
            if self._numbers and step <= self._numbers[-1]:
                keep = bisect_left(self._numbers, step)
                del self._numbers[keep:], self._at[keep:], self._t[keep:]
            self._numbers.append(step)
            self._at.append(at)
            self._t.append(t)
            self._read = at

    def index(self, step: int | None, move: int) -> int | None:
        """Where a step is, or the newest; then `move` measured steps on, as far as there are any."""
        if not self._numbers:
            return None
        at = len(self._numbers) - 1 if step is None else bisect_right(self._numbers, step) - 1
        return min(max(at + move, 0), len(self._numbers) - 1)

    def nearest(self, x: float, by_time: bool) -> int | None:
        """The last step at or before this place; None when it begins later or has ended before."""
        places = self._t if by_time else self._numbers
        if not places or x > places[-1] + 1:
            return None
        at = bisect_right(places, x) - 1
        return at if at >= 0 else None

    def x(self, index: int, by_time: bool) -> float:
        return self._t[index] if by_time else float(self._numbers[index])

    def values(self, index: int) -> StepValues:
        """Each curve's newest value before the next step began."""
        connection, step = self._queries.connection(), self._numbers[index]
        until = self._at[index + 1] if index + 1 < len(self._at) else 1 << 62
        values: dict[str, tuple[float, int | None]] = {}
        for series, name in connection.execute(_ALL, self._identity).fetchall():
            row = connection.execute(_AT, (series, until, step)).fetchone()
            if row is not None:
                values[name] = (math.nan if row[1] is None else row[1], row[0])
        return StepValues(step, self._t[index], values)

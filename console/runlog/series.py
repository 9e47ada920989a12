"""One curve, kept small: a million points become a few thousand buckets that a chart can redraw in a millisecond.

A bucket holds its lowest and highest point with their own steps, so a spike of a single step stays visible and in
place. New points go into the last bucket; when there are too many buckets, neighbours merge. It knows nothing of
charts, and reads only rows that it has not seen.
"""

from __future__ import annotations

import math
import sqlite3
from bisect import bisect_left
from dataclasses import dataclass

from console.runlog.queries import Queries

MAX_BUCKETS = 2048  # several per dot column of the widest terminal; twice as many exist before they merge
_CHUNK = 10_000


@dataclass(frozen=True)
class Curve:
    """What to draw. `segments` are unbroken lines (xs, ys), split where the data had a NaN or infinity at `gaps`."""

    segments: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    gaps: tuple[float, ...]
    count: int

    @property
    def empty(self) -> bool:
        return not self.segments


class _Bucket:
    __slots__ = ("first", "gap", "high", "high_x", "last", "low", "low_x", "size")

    def __init__(self, x: float) -> None:
        self.first = self.last = x
        self.low, self.high = math.inf, -math.inf
        self.low_x = self.high_x = x
        self.gap: float | None = None  # where the first non-finite value is
        self.size = 0


class Series:
    """One metric of one stage of one run. Not safe for use by two threads at once.

    `x` is "step" or "time" (seconds since the epoch, on the box). `smooth` in 0..1 draws the exponential moving average
    with that weight instead of the raw values, bias-corrected, and exact whatever the zoom.
    """

    def __init__(self, queries: Queries, run: str, stage: str, name: str, *, x: str = "step",
                 smooth: float = 0.0) -> None:
        self._queries, self._identity = queries, (run, stage, name)
        self._column = {"step": "coalesce(step, at)", "time": "t"}[x]
        self._by_time = x == "time"
        self.run, self.stage, self.name, self.smooth = run, stage, name, smooth
        self._reset(key=None, generation=-1)

    def _reset(self, key: int | None, generation: int) -> None:
        self._key, self._generation, self._at = key, generation, -1
        self._buckets: list[_Bucket] = []
        self._capacity = 1  # points per bucket
        self._average, self._weight = 0.0, 0.0
        self.count = 0
        self.last: tuple[float, float] | None = None  # newest (x, y) as measured, not smoothed

    def refresh(self) -> bool:
        """Take in the rows that came since the last call; True when there were any."""
        connection = self._queries.connection()
        found = connection.execute(
            "SELECT series.key, generation FROM series JOIN runs ON runs.key = series.run "
            "JOIN sources ON sources.run = runs.key WHERE runs.id = ? AND stage = ? AND name = ?",
            self._identity).fetchone()
        changed = False
        if (found[0], found[1]) != (self._key, self._generation) if found else self._key is not None:
            changed = self.count > 0
            self._reset(*(found or (None, -1)))
        return self._read(connection) or changed if found else changed

    def _read(self, connection: sqlite3.Connection) -> bool:
        grew = False
        new = f"SELECT at, {self._column}, value FROM points WHERE series = ? AND at > ? ORDER BY at"
        rows = connection.execute(new, (self._key, self._at))
        while chunk := rows.fetchmany(_CHUNK):
            for _, x, value in chunk:
                self._add(x, math.nan if value is None else value)
            self._at, grew = chunk[-1][0], True
        return grew

    def _add(self, x: float, y: float) -> None:
        if self.last is not None and x <= self.last[0]:
            if self._by_time:  # a clock that was set back moves nothing
                x = self.last[0]
            else:
                self._rewind(x)
        self.last = (x, y)
        self.count += 1
        if not self._buckets or self._buckets[-1].size >= self._capacity:
            if len(self._buckets) >= 2 * MAX_BUCKETS:
                self._merge()
            if not self._buckets or self._buckets[-1].size >= self._capacity:
                self._buckets.append(_Bucket(x))
        bucket = self._buckets[-1]
        bucket.size += 1
        bucket.last = x
        if not math.isfinite(y):
            bucket.gap = x if bucket.gap is None else bucket.gap
            return
        if self.smooth:
            y = self._smoothed(y)
        if y < bucket.low:
            bucket.low, bucket.low_x = y, x
        if y > bucket.high:
            bucket.high, bucket.high_x = y, x

    def _smoothed(self, y: float) -> float:
        self._average = self.smooth * self._average + (1 - self.smooth) * y
        self._weight = self.smooth * self._weight + (1 - self.smooth)
        return self._average / self._weight

    def _rewind(self, x: float) -> None:
        """A later attempt goes on from a checkpoint before the end: what it repeats replaces what was there."""
        keep = bisect_left([b.last for b in self._buckets], x)
        for bucket in self._buckets[keep:]:
            self.count -= bucket.size
        del self._buckets[keep:]

    def _merge(self) -> None:
        """Join neighbours two by two, so that every bucket may hold twice as many points."""
        left = self._buckets[0::2]
        for a, b in zip(left, self._buckets[1::2], strict=False):
            a.last, a.size = b.last, a.size + b.size
            a.gap = b.gap if a.gap is None else a.gap
            if b.low < a.low:
                a.low, a.low_x = b.low, b.low_x
            if b.high > a.high:
                a.high, a.high_x = b.high, b.high_x
        self._buckets = left
        self._capacity *= 2

    @property
    def span(self) -> tuple[float, float] | None:
        """First and last x, or None when there is nothing."""
        return (self._buckets[0].first, self._buckets[-1].last) if self._buckets else None

    def points(self, width: int, start: float | None = None, end: float | None = None) -> Curve:
        """At most two points (lowest and highest, in order of x) for each of `width` columns between `start` and `end`,
        twice that in a column where the line breaks.

        Exact to a bucket, which is at most 1/2048 of the whole curve.
        """
        if not self._buckets or width < 1:
            return Curve((), (), self.count)
        lo = self._buckets[0].first if start is None else start
        hi = self._buckets[-1].last if end is None else end
        scale = width / (hi - lo) if hi > lo else 0.0
        shown = [b for b in self._buckets if b.last >= lo and b.first <= hi]
        return _columns(shown, lo, scale, width, self.count)


def _columns(buckets: list[_Bucket], lo: float, scale: float, width: int, count: int) -> Curve:
    segments: list[tuple[list[float], list[float]]] = []
    gaps: list[float] = []
    column, broken, low, high = -1, -1, (0.0, math.inf), (0.0, -math.inf)

    def flush() -> None:
        if high[1] == -math.inf:
            return
        if not segments:
            segments.append(([], []))
        xs, ys = segments[-1]
        for x, y in sorted({low, high}):
            xs.append(x)
            ys.append(y)

    for bucket in buckets:
        here = min(max(int((bucket.first - lo) * scale), 0), width - 1)
        breaks = bucket.gap is not None and here != broken  # one break per column is all that can be seen
        if here != column or breaks:
            flush()
            column, low, high = here, (0.0, math.inf), (0.0, -math.inf)
        if bucket.gap is not None and breaks:
            broken = here
            gaps.append(bucket.gap)
            if segments and segments[-1][0]:
                segments.append(([], []))
        if bucket.low < low[1]:
            low = (bucket.low_x, bucket.low)
        if bucket.high > high[1]:
            high = (bucket.high_x, bucket.high)
    flush()
    return Curve(tuple((tuple(xs), tuple(ys)) for xs, ys in segments if xs), tuple(gaps), count)

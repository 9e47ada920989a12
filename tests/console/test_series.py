"""A curve of any length stays small, and keeps every spike, every gap, and what a later attempt replaced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.runlog import series as series_module
from console.runlog.series import Series
from console.workspace import Workspace

STAGE = "01-base_train"


class Fed(Series):
    """A series that is given its points directly; the database has its own tests below."""

    def __init__(self, values: list[tuple[float, float]], **options: Any) -> None:
        super().__init__(None, "r", "s", "loss", **options)  # type: ignore[arg-type]
        for x, y in values:
            self._add(x, y)


def drawn(series: Series, width: int) -> list[tuple[float, float]]:
    return [point for xs, ys in series.points(width).segments for point in zip(xs, ys, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600), st.integers(1, 80))
def test_at_most_two_points_per_column_all_real_and_in_order(values: list[float], width: int) -> None:
    series = Fed(list(enumerate(values)))
    points = drawn(series, width)
    assert len(points) <= 2 * width
    assert points == sorted(points, key=lambda p: p[0])
    assert all(values[int(x)] == y for x, y in points)
    assert min(y for _, y in points) == min(values)
    assert max(y for _, y in points) == max(values)


def test_few_points_in_wide_columns_are_all_there() -> None:
    values = [(float(x), math.sin(x)) for x in range(50)]
    assert drawn(Fed(values), 400) == values


def test_a_spike_of_one_step_survives_a_million_points() -> None:
    series = Fed([(x, 1.0 if x != 777_777 else 50.0) for x in range(1_000_000)])
    assert len(series._buckets) <= 2 * series_module.MAX_BUCKETS
    assert (777_777, 50.0) in drawn(series, 100)
    assert series.count == 1_000_000 and series.last == (999_999, 1.0)


def test_non_finite_values_split_the_line_and_are_marked() -> None:
    curve = Fed([(0, 1.0), (1, 2.0), (2, math.nan), (3, 3.0), (4, math.inf), (5, 4.0)]).points(100)
    assert [xs for xs, _ in curve.segments] == [(0, 1), (3,), (5,)]
    assert curve.gaps == (2, 4)


def test_nothing_but_gaps_is_empty_and_bounded() -> None:
    curve = Fed([(x, math.nan) for x in range(5000)]).points(40)
    assert curve.empty and len(curve.gaps) <= 40
    assert Fed([]).points(10).empty


def test_what_a_resumed_attempt_repeats_replaces_what_was_there() -> None:
    series = Fed([(x, 1.0) for x in range(100)] + [(x, 2.0) for x in range(60, 90)])
    points = drawn(series, 1000)
    assert points == [(x, 1.0) for x in range(60)] + [(x, 2.0) for x in range(60, 90)]
    assert series.count == 90


def test_smoothing_is_the_bias_corrected_average() -> None:
    values = [3.0, 1.0, 2.0, 5.0]
    average, expected = 0.0, []
    for n, value in enumerate(values, 1):
        average = 0.6 * average + 0.4 * value
        expected.append(average / (1 - 0.6**n))
    points = drawn(Fed(list(enumerate(values)), smooth=0.6), 100)
    assert [y for _, y in points] == pytest.approx(expected)


def test_a_window_shows_only_itself() -> None:
    points = [p for xs, ys in Fed([(x, float(x)) for x in range(1000)]).points(50, start=200, end=300).segments
              for p in zip(xs, ys, strict=True)]
    assert points[0][0] == 200 and points[-1][0] == 300


def test_refresh_reads_only_what_is_new(workspace: Workspace, make_run: Callable[..., Any]) -> None:
    run, writer = make_run()
    series = Series(workspace.queries, run.id, STAGE, "loss")
    assert not series.refresh()
    for step in range(10):
        writer.metric(step, loss=float(step))
    workspace.ingest()
    assert series.refresh() and not series.refresh()
    writer.metric(10, loss=math.nan)
    writer.metric(11, loss=3.0)
    workspace.ingest()
    assert series.refresh()
    assert series.count == 12
    assert series.points(100).gaps == (10,)


def test_refresh_notices_that_the_run_was_read_anew(workspace: Workspace, make_run: Callable[..., Any]) -> None:
    run, writer = make_run()
    for step in range(10):
        writer.metric(step, loss=1.0)
    workspace.ingest()
    series = Series(workspace.queries, run.id, STAGE, "loss")
    series.refresh()
    data = run.events.read_bytes()
    run.events.write_bytes(b"".join(line + b"\n" for line in data.split(b"\n")[:3]))
    workspace.ingest()
    assert series.refresh()
    assert series.count == 3


def test_the_time_axis_survives_a_clock_that_is_set_back() -> None:
    series = Fed([(100.0, 1.0), (50.0, 2.0), (101.0, 3.0)], x="time")
    assert [x for x, _ in drawn(series, 1000)] == [100.0, 100.0, 101.0]

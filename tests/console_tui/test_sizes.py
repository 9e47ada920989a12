"""Every screen at every size from nothing to a wall of terminals, resized live; charts at all sizes by property."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.runlog.series import Curve
from console.widgets import axis, numbers
from console.widgets.chart import ChartView, picture

SIZES = [
    (120, 36),
    (1, 1),
    (80, 24),
    (10, 4),
    (59, 15),
    (60, 16),
    (300, 100),
    (2, 40),
    (200, 3),
    (100, 24),
    (140, 36),
    (61, 17),
]


@pytest.mark.parametrize("mode", ["home", "run", "logs", "checkpoints", "chat", "activity"])
async def test_a_screen_survives_every_size(drive: Any, world: Any, mode: str) -> None:
    world.run(end="finished", nan_at=20)
    async with drive() as driver:
        driver.app.switch_mode(mode)
        for width, height in SIZES:
            await driver.resize(width, height)
            assert driver.app.is_running
        await driver.resize(120, 36)
        await driver.sees("llmconsole")


async def test_too_small_says_state_loss_and_the_size_it_needs(drive: Any, world: Any) -> None:
    world.run()
    async with drive((59, 15)) as driver:
        await driver.sees("RUNNING")
        await driver.sees("loss 2.01")
        await driver.sees("60x16")
        assert "llmconsole" not in driver.text()


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def curves(draw: Any) -> Curve:
    xs = sorted(draw(st.lists(st.floats(0, 1e12), max_size=30)))
    ys = draw(st.lists(FINITE, min_size=len(xs), max_size=len(xs)))
    cut = draw(st.integers(0, len(xs)))
    segments = tuple((tuple(xs[a:b]), tuple(ys[a:b])) for a, b in ((0, cut), (cut, len(xs))) if b > a)
    return Curve(segments, tuple(draw(st.lists(st.floats(0, 1e12), max_size=3))), len(xs))


@settings(max_examples=150, deadline=None)
@given(
    curves(),
    curves(),
    st.integers(0, 80),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
    st.sampled_from(axis.X_AXES),
)
def test_a_chart_draws_anything_at_any_size(
    raw: Curve, smooth: Curve, width: int, height: int, log: bool, robust: bool, x_axis: str
) -> None:
    view = ChartView("loss", raw, smooth if smooth.segments else None, 1.0, log, robust, x_axis)
    rows = picture(view, width, height)
    assert len(rows) <= height
    assert all(sum(len(text) for text, _ in row) <= width for row in rows)


def test_a_spike_of_one_step_and_a_gap_are_seen() -> None:
    xs = tuple(float(i) for i in range(100))
    ys = tuple(9.0 if i == 50 else 1.0 for i in range(100))
    text = ["".join(part for part, _ in row) for row in picture(ChartView("", Curve(((xs, ys),), (), 100)), 60, 12)]
    assert any("⠀" < char <= "⣿" for char in text[0]), "the spike reaches the top row"
    gap = Curve(((xs[:40], ys[:40]), (xs[60:], ys[60:])), (45.0, 55.0), 80)
    rows = picture(ChartView("", gap), 60, 12)
    assert "".join(part for part, _ in rows[-2]).count("×") == 2


def test_a_chart_after_an_empty_one_is_visible() -> None:
    assert picture(ChartView(""), 30, 8)
    line = Curve((((0.0, 1.0), (0.0, 1.0)),), (), 2)
    assert any(
        "⣀" <= char or "⠀" < char for row in picture(ChartView("", line), 30, 8) for part, _ in row for char in part
    )


@given(FINITE, FINITE, st.integers(1, 8))
def test_ticks_are_few_round_and_inside(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    if math.isinf(high - low) or high - low < 1e-300:
        return
    values = axis.ticks(low, high, count)
    room = (high - low) * 1e-6
    assert len(values) <= count
    assert all(low - room <= value <= high + room for value in values)
    assert len(axis.tick_labels(values)) == len(values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.4131, "2.41"),
        (48.23, "48.2"),
        (1_097_642, "1.10M"),
        (4900, "4.90k"),
        (999_999, "1.00M"),
        (0.00012, "1.2e-4"),
        (0, "0.00"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (None, "–"),
    ],
)
def test_short_numbers(value: float | None, text: str) -> None:
    assert numbers.short(value) == text


def test_spans_clocks_and_sizes() -> None:
    assert [numbers.clock(s) for s in (0, 42, 725, 8048)] == ["0:00", "0:42", "12:05", "2:14:08"]
    assert [numbers.span(s) for s in (1.9, 40, 200, 9000, 400_000)] == ["1.9 s", "40 s", "3 min", "2.5 h", "5 days"]
    assert [numbers.size(s) for s in (812, 3_900_000, 46_800_000_000)] == ["812 B", "3.9 MB", "46.8 GB"]
    assert [numbers.bar(s, 4) for s in (0, 0.5, 1, math.nan)] == ["    ", "██  ", "████", "    "]

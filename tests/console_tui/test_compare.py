"""Runs drawn beside each other, and the crosshair: keys, legend, values, and the way back."""

from __future__ import annotations

from typing import Any

from console.runlog.series import Curve
from console.screens.picker import Picker
from console.widgets.canvas import dash
from console.widgets.chart import Beside, Chart, ChartView, picture


def kinds(view: ChartView) -> set[str]:
    return {kind for row in picture(view, 60, 14) for text, kind in row if text.strip()}


def line(low: float, high: float, last: int = 99) -> Curve:
    xs = tuple(float(i) for i in range(last + 1))
    return Curve(((xs, tuple(low + (high - low) * x / 99 for x in xs)),), (), last + 1)


def test_other_runs_differ_by_dash_and_colour_and_share_the_axes() -> None:
    view = ChartView("loss", line(0, 1), beside=(Beside(line(3, 4)), Beside(line(8, 9), x_factor=2.0)))
    assert kinds(view) == {"label", "line", "other1", "other2"}
    rows = ["".join(text for text, _ in row) for row in picture(view, 60, 14)]
    assert rows[-1].split()[-1] == "198"  # the third run counts twice as fast
    assert [dash("⠉⠉⠉⠉⠉⠉ ", kind) for kind in (1, 2)] == ["⠉⠉ ⠉⠉  ", "⠁⠁⠁⠁⠁⠁ "]


def test_the_crosshair_is_drawn_where_it_stands_and_nowhere_else() -> None:
    assert "cross" in kinds(ChartView("loss", line(0, 1), cross=50.0))
    assert "cross" not in kinds(ChartView("loss", line(0, 1), cross=500.0))


async def test_a_run_is_drawn_beside_and_taken_away_again(drive: Any, world: Any) -> None:
    world.run("old-1", steps=40, end="finished")
    world.run("tiny-2")
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("train loss")
        await driver.press("c")
        await driver.until(lambda: isinstance(driver.app.screen, Picker), "the list")
        await driver.sees("old-1")
        assert "tiny-2" not in driver.text().split("Draw which run", 1)[1].split("enter choose")[0]
        await driver.press("enter")
        await driver.sees("━━ tiny-2 (this run)")
        await driver.sees("╍╍ old-1")
        await driver.until(lambda: any(chart.view.beside for chart in driver.app.screen.query(Chart)), "two curves")
        await driver.sees("report cards")
        await driver.sees("vs 2.07")
        await driver.press("escape")
        await driver.until(lambda: "old-1" not in driver.text(), "the end of comparing")


async def test_the_crosshair_says_every_value_at_a_step(drive: Any, world: Any) -> None:
    world.run("old-1", steps=40, end="finished")
    world.run("tiny-2")
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("train loss")
        await driver.press("i")
        await driver.sees("step 60 · 500k tokens")
        await driver.press(*["left"] * 3, "shift+left", "right")
        await driver.sees("step 48 · ")
        await driver.sees("9048")
        await driver.sees("mfu" if "mfu" in driver.text() else "MFU")
        driver.app.compare_with(("old-1",))
        await driver.press("shift+left", "a")
        await driver.sees("step 38 · ")
        await driver.sees("╍╍ 38")
        await driver.press("escape")
        await driver.sees("step 00060/00100")
        await driver.sees("old-1")


async def test_a_stage_without_steps_says_so_instead_of_a_crosshair(drive: Any, world: Any) -> None:
    world.run()
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("train loss")
        await driver.press("left_square_bracket", "i")
        await driver.sees("this stage has no steps")

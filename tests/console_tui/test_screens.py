"""Each screen on a scripted world: what stands there, what keys do, what is said when something is wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import Input

from console.exit_lines import exit_lines
from console.screens.sheets import Sheet
from console.widgets.chart import Chart
from console.widgets.log_view import LogView
from engine.events import EventWriter


async def test_a_newcomer_is_told_what_to_press(drive: Any) -> None:
    async with drive() as driver:
        await driver.sees("Train a tiny model, here")
        await driver.sees("IDLE")
        await driver.press("5")
        await driver.sees("No model here yet")
        await driver.press("escape", "2")
        await driver.sees("Press s to train a tiny model here")


async def test_one_key_shows_what_a_start_will_do_and_nothing_starts_without_a_yes(drive: Any, world: Any) -> None:
    async with drive() as driver:
        await driver.press("s")
        await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the confirm sheet")
        await driver.sees("llmconsole run start tiny")
        text = driver.text()
        for fact in ("this machine", "about", "$0.00", "needed", str(world.base)[:20], "Pretrain the base model"):
            assert fact in text
        await driver.press("escape")
        await driver.sees("Start here")
        assert not (world.base / "runs").exists()


async def test_a_start_goes_through_the_operator_and_shows_the_run(
    drive: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with drive() as driver:
        started: list[Any] = []

        def start(plan: Any) -> str:
            started.append(plan)
            world.run(plan.run)
            driver.app.workspace.ingest()
            return plan.run

        monkeypatch.setattr(driver.app.workspace.operator, "start", start)
        await driver.press("enter")
        await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the confirm sheet")
        await driver.press("enter")
        await driver.until(lambda: started, "the start")
        await driver.sees("train loss")
        assert driver.app.current_mode == "run" and started[0].recipe == "tiny"


async def test_the_run_screen_shows_progress_curves_machine_and_log(drive: Any, world: Any) -> None:
    world.run()
    async with drive() as driver:
        await driver.press("2")
        await driver.until(lambda: any(chart.view.raw.segments for chart in driver.app.screen.query(Chart)), "a curve")
        for text in (
            "Base",
            "60%",
            "step 60/100",
            "ETA 0:12",
            "train loss",
            "val bpb",
            "tok/s",
            "MFU",
            "cpu",
            "690",
            "21.0 MB",
            "step 00060/00100",
            "RUNNING",
        ):
            await driver.sees(text)
        assert any("⠀" < char <= "⣿" for char in driver.text())
        await driver.press("n")
        await driver.sees("lr multiplier")
        await driver.press("N", "e")
        await driver.sees("ema 0.9")
        await driver.press("v", "w", "a")
        await driver.sees("ema 0.9 · log")
        await driver.sees("492k")


async def test_events_that_come_while_we_look_appear(drive: Any, world: Any) -> None:
    run = world.run()
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("step 60/100")
        writer = EventWriter(run.events, run=run.id, stage="03-base_train")
        writer.progress(61, 100, "step", 10.0)
        writer.alert("warning", "slow", "the disk is [/slow]", "look at 6")
        await driver.sees("step 61/100")
        await driver.sees("the disk is [/slow]")


async def test_a_gap_stays_where_the_loss_was_not_finite(drive: Any, world: Any) -> None:
    world.run(nan_at=30)
    async with drive() as driver:
        await driver.press("2")
        await driver.until(lambda: any(chart.view.raw.gaps for chart in driver.app.screen.query(Chart)), "the gap")
        await driver.sees("×")


@pytest.mark.parametrize(
    ("end", "word", "next_key"), [("failed", "FAILED", "s resumes"), ("stopped", "STOPPED", "s resumes")]
)
async def test_a_run_that_ended_badly_says_so_and_which_key_goes_on(
    drive: Any, world: Any, end: str, word: str, next_key: str
) -> None:
    world.run(end=end)
    async with drive() as driver:
        resumed: list[str] = []
        driver.app.workspace.operator.resume = lambda run: resumed.append(run) or 2
        await driver.press("2")
        await driver.sees(word)
        await driver.sees(next_key)
        await driver.press("s")
        await driver.until(lambda: resumed == ["tiny-1"], "the resume")


async def test_a_finished_run_shows_its_report_card(drive: Any, world: Any) -> None:
    world.run(end="finished")
    async with drive() as driver:
        await driver.press("2")
        for text in ("report card", "capitals", "98.0%", "press 5"):
            await driver.sees(text)
        await driver.press("4")
        await driver.sees("only here")
        await driver.press("6")
        await driver.sees("03-base_train saved step 50")


async def test_stopping_asks_and_the_harmless_button_is_in_front(
    drive: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    async with drive() as driver:
        asked: list[str] = []
        monkeypatch.setattr(driver.app.workspace.operator, "stop", lambda run: asked.append(run))
        await driver.press("2", "x")
        await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the question")
        await driver.press("enter")
        await driver.until(lambda: not isinstance(driver.app.screen, Sheet), "the answer")
        assert not asked
        await driver.press("x")
        await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the question again")
        await driver.press("left", "enter")
        await driver.until(lambda: asked == ["tiny-1"], "the stop")


async def test_logs_follow_pin_filter_and_search(drive: Any, world: Any) -> None:
    run = world.run(steps=60)
    path = run.stage_log("03-base_train")
    async with drive() as driver:
        await driver.press("3")
        await driver.sees("FOLLOW · 60 lines")
        view = driver.app.screen.query_one("#log", LogView)
        with path.open("a") as log:
            log.write("val bpb 0.9 [/red]\n")
        await driver.sees("val bpb 0.9 [/red]")
        await driver.press("pageup")
        await driver.until(lambda: not view.following, "the end of following")
        await driver.until(lambda: "PINNED" in driver.text(), "the badge")
        before = driver.text().splitlines()[4]
        with path.open("a") as log:
            log.write("more\n" * 50)
        await driver.sees("50 new below")
        assert driver.text().splitlines()[4] == before
        await driver.press("f")
        await driver.until(lambda: view.following and "FOLLOW" in driver.text(), "following again")
        await driver.press("slash")
        await driver.until(lambda: isinstance(driver.app.focused, Input), "the filter bar")
        await driver.write("bpb")
        await driver.sees("1 of 111 lines · 110 hidden")
        await driver.press("enter")
        await driver.until(lambda: driver.app.focused is view, "the log")
        await driver.press("exclamation_mark")
        await driver.sees("110 of 111 lines")
        await driver.press("exclamation_mark", "escape")
        await driver.sees("111 lines · 1 match")
        await driver.press("n")
        await driver.until(lambda: view._current == 60, "the match")


async def test_wrapped_lines_reach_the_end(drive: Any, world: Any) -> None:
    world.run(log=b"".join(b"%d " % i + b"w" * 280 + b"!end%d\n" % i for i in range(40)))
    async with drive((80, 24)) as driver:
        await driver.press("3")
        await driver.sees("›")
        await driver.press("w")
        await driver.sees("!end39")
        await driver.press("home")
        await driver.sees("!end0")
        await driver.press("f")
        await driver.sees("!end39")


async def test_a_second_console_is_read_only_and_says_who_owns_the_log(
    drive: Any, world: Any, workspaces: Callable[..., Any]
) -> None:
    world.run(end="failed")
    owner = workspaces()
    owner.ingest()
    async with drive(workspace=workspaces()) as driver:
        await driver.sees("READ-ONLY")
        await driver.sees("pid")
        await driver.press("2", "s")
        await driver.sees("not done")
        owner.close()
        await driver.until(lambda: "READ-ONLY" not in driver.text(), "taking over", 10)


async def test_help_and_palette_come_from_the_bindings(drive: Any, world: Any) -> None:
    world.run()
    async with drive((120, 50)) as driver:
        await driver.press("2", "question_mark")
        await driver.sees("Finish the step, save, stop; asks first")
        await driver.sees("Smoothing: off, 0.6, 0.9")
        await driver.press("end")  # the list is longer than the screen
        await driver.sees("Leave; work keeps running")
        await driver.press("escape", "colon")
        await driver.sees("Search")
        await driver.write("log scale, all")
        await driver.sees("log scale, all  (V)")
        await driver.press("escape")


async def test_a_persons_own_keys_work_and_stand_in_help_and_key_bar(drive: Any, world: Any) -> None:
    world.run()
    async with drive((120, 50), keymap={"run.stop": "ctrl+x", "app.help": "f9", "run.page_next": "g"}) as driver:
        await driver.press("2")
        await driver.sees("^x stop")
        await driver.sees("f9 help")
        await driver.press("x", "f9")
        await driver.sees("Finish the step, save, stop; asks first")
        line = next(line for line in driver.text().splitlines() if "Finish the step" in line)
        assert "^x" in line
        await driver.press("escape", "ctrl+x")
        await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the question")


async def test_quitting_while_running_is_quick_and_says_what_goes_on(drive: Any, world: Any) -> None:
    world.run()
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("RUNNING")
        start = time.monotonic()
        await driver.press("q")
        await driver.until(lambda: not driver.app.is_running or driver.app.return_value, "the end")
        assert time.monotonic() - start < 1.0
        assert "tiny-1 keeps running" in (driver.app.return_value or "")
        assert "llmconsole run stop tiny-1" in driver.app.return_value


def test_the_exit_line_without_any_run() -> None:
    assert exit_lines(None) == "Nothing is running. Come back with: llmconsole"


@pytest.mark.parametrize(
    ("age", "word", "told"), [(60, "QUIET", "since step 60; one takes 0.4 s"), (300, "STALLED", "x stops it")]
)
async def test_a_stage_that_stands_still_is_quiet_and_then_stalled(
    drive: Any, world: Any, age: float, word: str, told: str
) -> None:
    run = world.run()
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    moved = events[-1]["t"] - (time.time() - age)
    run.events.write_text("".join(json.dumps({**e, "t": e["t"] - moved}) + "\n" for e in events))
    os.utime(run.stage_log("03-base_train"), (time.time() - age,) * 2)
    async with drive() as driver:
        await driver.press("2")
        await driver.sees(f"{word}  no step for")
        await driver.sees(told)
        assert word in driver.text().splitlines()[0]

"""The sheet that follows a run of nanochat itself: what is found is said first, then it is a run like ours, marked."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Button, Input

from console.screens.attach_sheet import AttachSheet
from console.screens.sheets import Sheet

HEAD = "Vocab size: 1,024\nnum_layers: 2\nTotal batch size 512 => gradient accumulation steps: 2\n"
STEP = ("step {n:05d}/00060 ({p:.2f}%) | loss: {loss:.6f} | lrm: 1.00 | dt: 47.70ms | tok/sec: 8,026 | mfu: 0.01 | "
        "total time: 0.00m\n")


def steps(first: int, last: int) -> str:
    return "".join(STEP.format(n=n, p=100 * n / 60, loss=6.9 - n / 20) for n in range(first, last))


async def typed(driver: Any, path: str) -> AttachSheet:
    await driver.press("A")
    await driver.until(lambda: isinstance(driver.app.screen, AttachSheet) and driver.app.screen.query("#no"), "a sheet")
    sheet = driver.app.screen
    field = sheet.query_one("#path", Input)
    await driver.until(lambda: field.has_focus, "the focus")
    await driver.press("end")
    field.value = path
    return sheet


async def test_a_log_is_looked_at_followed_live_and_let_go(drive: Any, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(HEAD + steps(0, 20))
    async with drive() as driver:
        sheet = await typed(driver, str(log))
        await driver.sees("found: 23 lines, classic nanochat, Base at step 19 of 60")
        assert not sheet.query_one("#yes", Button).disabled
        await driver.press("enter")
        await driver.until(lambda: sheet.query_one("#yes", Button).has_focus, "the focus")
        await driver.press("enter")
        await driver.sees("attached (not ours)", 20)
        (run,) = driver.app.workspace.queries.runs()
        try:
            with log.open("a") as f:
                f.write(steps(20, 41))
            await driver.sees("steps 41/60", 20)
            await driver.sees("train loss 4.9", 20)
            await driver.press("s")
            await driver.sees("so it cannot be started or")
            await driver.press("x")
            await driver.until(lambda: isinstance(driver.app.screen, Sheet), "the question")
            await driver.sees("cannot be stopped from here")
            await driver.press("left", "enter")
            await driver.sees("it is not followed any more", 20)
        finally:
            driver.app.workspace.operator.stop(run.id, graceful=False)
        assert log.read_text() == HEAD + steps(0, 41)


@pytest.mark.parametrize(("name", "told"), [("none.log", "there is no"), ("other.log", "nothing that nanochat prints")])
async def test_what_is_no_log_of_nanochat_is_said(drive: Any, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "other.log").write_text("hello\n")
    async with drive((80, 24)) as driver:
        sheet = await typed(driver, str(tmp_path / name))
        await driver.sees(told)
        assert sheet.query_one("#yes", Button).disabled is (name == "none.log")
        await driver.press("escape")
        await driver.sees("Start here")


async def test_a_path_is_completed_without_waiting_for_a_slow_machine(
    drive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "speedrun.log").write_text(HEAD)
    async with drive() as driver:
        sheet = await typed(driver, f"{tmp_path}/speed")
        path = sheet.query_one("#path", Input)
        await driver.until(lambda: path._suggestion.endswith("speedrun.log"), "the completion")
        await driver.press("right")
        await driver.until(lambda: path.value == str(tmp_path / "speedrun.log"), "the whole path")
        release = threading.Event()
        monkeypatch.setattr("console.attaching._names", lambda host, at: release.wait(5) and [])
        path.value = f"{tmp_path}/s"
        await driver.press("escape")
        start = time.monotonic()
        await driver.press("q")
        await driver.until(lambda: not driver.app.is_running or driver.app.return_value, "the end")
        assert time.monotonic() - start < 1.0
        release.set()

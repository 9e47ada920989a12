"""Renting on screen: the sheet with offers, the meter, provisioning, the guard, the end; at 120x36 and at 80x24."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from console.machines import preparing
from console.rental import steps as rental_steps
from console.rental.rental import Phase
from console.settings import RentSettings
from console.workspace import Workspace
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod

STAND_IN = """
import json, os, sys, time
run = sys.argv[1]
about = json.load(open(run + "/run.json"))
seq = 0
def emit(kind, data, stage=None, step=None):
    global seq
    seq += 1
    row = {"v": 1, "seq": seq, "t": time.time(), "mono": 0, "run": about["run"], "attempt": 1, "stage": stage,
           "kind": kind, "step": step, "data": data}
    with open(run + "/events.jsonl", "a") as f:
        f.write(json.dumps(row) + "\\n")
stage = about["stages"][0]["id"]
emit("run", {"state": "started", "stages": about["stages"]})
emit("stage", {"state": "started", "index": 1, "title": "Base"}, stage)
for step in range(20):
    emit("metric", {"loss": 3.0 - step / 10}, stage, step)
    time.sleep(0.05)
emit("stage", {"state": "finished", "seconds": 0.1, "exit_code": 0}, stage)
emit("run", {"state": "finished", "exit_code": 0})
"""


@pytest.fixture
def rented_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeCloud, Workspace]]:
    """A provider on loopback and a console whose `s` rents from it."""
    import remote.bootstrap

    script, home = tmp_path / "stand_in.py", tmp_path / "home"
    script.write_text(STAND_IN)
    (home / "recipes").mkdir(parents=True)
    (home / "recipes" / "short.toml").write_text('title = "Short"\n[[stage]]\nstage = "base_train"\ndepth = 4\n')
    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    with FakeRunPod(FakeCloud(tmp_path / "cloud", placing_s=0.2, pulling_s=0.2)) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        with Workspace.open(pipeline=lambda python, run: [sys.executable, "-I", "-S", str(script), run]) as workspace:
            workspace.hosts.targets.use("runpod")
            yield server.cloud, workspace


def choose(app: Any) -> None:
    """The settings that a config.toml would give."""
    object.__setattr__(app.settings.run, "recipe", "short")
    object.__setattr__(app.settings, "rent", RentSettings(gpus="2xA100"))


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_from_s_to_nothing_bills(drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace],
                                       size: tuple[int, int]) -> None:
    cloud, workspace = rented_world
    async with drive(size, workspace) as driver:
        choose(driver.app)
        await driver.press("s")
        await driver.sees("EU-RO-1", 40)
        await driver.sees("a budget in dollars")
        sheet = driver.app.screen
        assert sheet.query_one("#yes").disabled and cloud.creates == 0
        sheet.query_one("#usd", Input).value, sheet.query_one("#hours", Input).value = "20", "2"
        await driver.until(lambda: not sheet.query_one("#yes").disabled, "an allowed quote")
        sheet.query_one("#yes").press()
        await driver.sees("of $20", 40)
        await driver.until(lambda: workspace.operator.rentals.book.unsettled() == [] and cloud.creates == 1,
                           "the pod's end", 60)
        await driver.sees("✓ FINISHED", 40)
        assert all(life.ended for life in cloud.lives.values())
        await driver.press("6")
        await driver.sees("gone", 40)
        await driver.sees("rented in all $")


async def test_a_refused_key_is_said_and_nothing_is_rented(drive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                                                           rented_world: tuple[FakeCloud, Workspace]) -> None:
    cloud, workspace = rented_world
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_mistyped0000000000")
    async with drive((120, 36), workspace) as driver:
        choose(driver.app)
        await driver.press("s")
        await driver.sees("Nothing was rented", 40)
        assert cloud.creates == 0 and "mistyped" not in driver.text()
        await driver.press("escape")


async def test_what_is_not_safe_is_shouted_on_every_screen_and_ends_only_by_its_name(
        drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace], monkeypatch: pytest.MonkeyPatch) -> None:
    from console.rental.bench import PodBench

    cloud, workspace = rented_world
    monkeypatch.setattr(PodBench, "unproven", lambda *_: ["base d4 step 20 (0.02 GB): there is no proven copy"])
    rentals = workspace.operator.rentals
    quote = rentals.quote("short", settings=RentSettings(gpus="2xA100"), budget_usd=20, budget_hours=1)
    rental = rentals.rent(quote)
    async with drive((120, 36), workspace) as driver:
        await driver.until(lambda: rentals.book.get(rental.id).phase is Phase.KEPT, "the doubt", 60)
        await driver.sees("NOT SAFE TO END")
        for key in "35":
            await driver.press(key)
            await driver.sees("NOT SAFE TO END")
        driver.app.action_end_rental()
        await driver.sees("Exists only there")
        sheet = driver.app.screen
        sheet.query_one("#lose").press()
        await driver.sees("nothing was ended")
        assert not rentals.book.get(rental.id).end_asked
        driver.app.action_end_rental()
        await driver.until(lambda: driver.app.screen is not sheet and driver.app.screen.query("#typed"), "the sheet")
        driver.app.screen.query_one("#typed", Input).value = str(rental.detail["target"])
        await driver.until(lambda: driver.app.screen.typed == rental.detail["target"], "the name")
        driver.app.screen.query_one("#lose").press()
        await driver.until(lambda: rentals.book.get(rental.id).phase is Phase.GONE, "the end", 30)
        assert all(life.ended for life in cloud.lives.values())


async def test_the_guard_opens_its_sheet_when_the_money_is_nearly_gone(
        drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace]) -> None:
    _, workspace = rented_world
    rentals = workspace.operator.rentals
    quote = rentals.quote("short", settings=RentSettings(gpus="2xA100"), budget_usd=20, budget_hours=1)
    rental = rentals.rent(quote)
    at = time.time()
    rentals.book.change(rental.id, at, phase=Phase.KEPT, pod="none", posted=at, seen=at, seen_elapsed=3590.0)
    async with drive((80, 24), workspace) as driver:
        await driver.sees("Budget guard: 100% used", 40)
        await driver.sees("cannot be switched off")


async def test_a_failed_run_s_machine_is_shown_with_its_price_and_resumed(
        drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace], monkeypatch: pytest.MonkeyPatch) -> None:
    from console.rental.bench import PodBench

    cloud, workspace = rented_world
    failures = ["the run failed: exit 1"]
    monkeypatch.setattr(PodBench, "failure", lambda *_: failures[0])
    rentals = workspace.operator.rentals
    quote = rentals.quote("short", settings=RentSettings(gpus="2xA100"), budget_usd=20, budget_hours=1)
    rental = rentals.rent(quote)
    async with drive((80, 24), workspace) as driver:
        await driver.until(lambda: rentals.book.get(rental.id).phase is Phase.HELD, "the hold", 60)
        await driver.sees("a minute: $", 40)
        await driver.sees("Give back")
        await driver.press("escape")
        await driver.press("2")
        await driver.sees("FAILED; its machine is held")
        await driver.sees(f"{rental.detail['target']} held")  # one line instead of the pane
        await driver.until(lambda: rentals.book.get(rental.id).proof, "the proof", 40)
        failures[0] = ""
        rentals.resume(rentals.book.get(rental.id), 2)
        await driver.until(lambda: rentals.book.get(rental.id).phase is Phase.GONE, "the end", 60)
        assert cloud.creates == 1 and all(life.ended for life in cloud.lives.values())


async def test_dollars_and_hours_are_changed_and_what_is_pending_is_said(
        drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace]) -> None:
    _, workspace = rented_world
    rentals = workspace.operator.rentals
    quote = rentals.quote("short", settings=RentSettings(gpus="2xA100"), budget_usd=20, budget_hours=1)
    rental, at = rentals.rent(quote), time.time()
    rentals.book.change(rental.id, at, phase=Phase.WAITING, name="n", pod="none", posted=at, started=at, seen=at,
                        seen_elapsed=0.0, deadline=at + 3600, armed=at + 3600, next_try=at + 9999)
    async with drive((80, 24), workspace) as driver:
        await driver.until(lambda: driver.app.glance and driver.app.glance.rented.alive, "the rental")
        await driver.press("M")
        await driver.sees("Limit …")
        driver.app.screen.query_one("#limit").press()
        await driver.sees("and hours")
        sheet = driver.app.screen
        sheet.query_one("#typed", Input).value, sheet.query_one("#also-0", Input).value = "50", "3"
        await driver.until(lambda: sheet.also == ["3"], "the hours")
        sheet.query_one("#raise").press()
        await driver.until(lambda: rentals.book.get(rental.id).budget_hours == 3, "the change", 40)
        after = rentals.book.get(rental.id)
        assert after.budget_usd == 50 and after.timer_pending and after.deadline == pytest.approx(at + 3 * 3600)
        await driver.press("2")
        await driver.sees("→")
        rentals.book.change(rental.id, at, phase=Phase.GONE, ended=at)


async def test_the_target_picker_shows_and_changes_where_runs_go(
        drive: Callable[..., Any], rented_world: tuple[FakeCloud, Workspace]) -> None:
    _, workspace = rented_world
    async with drive((120, 36), workspace) as driver:
        await driver.sees("Rent a machine and train")
        await driver.press("t")
        await driver.sees("add a machine")
        await driver.write("this")
        await driver.press("enter")
        await driver.until(lambda: workspace.hosts.targets.default == "local", "the change")
        await driver.sees("Train a tiny model, here", 40)

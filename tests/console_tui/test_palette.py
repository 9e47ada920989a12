"""Every action by name: each one exists, goes to its screen, and those without a key do what they say."""

from __future__ import annotations

import importlib
import tarfile
from typing import Any

import pytest
from textual.command import CommandList

from console import palette
from console.screens.picker import Picker
from console.screens.sheets import Sheet


@pytest.mark.parametrize(("title", "mode", "action"), [(t, m, a) for t, _, m, a in palette._ACTIONS])
def test_each_entry_has_an_action(title: str, mode: str, action: str) -> None:
    name = f"action_{action.removeprefix('app.')}"
    owner: Any = importlib.import_module("console.app").Console
    if not action.startswith("app."):
        owner = getattr(importlib.import_module(f"console.screens.{mode}"), f"{mode.capitalize()}Screen")
    assert callable(getattr(owner, name, None)), f"{title}: {name}"


async def choose(driver: Any, words: str) -> None:
    """By the palette, as a person does."""
    await driver.until(lambda: len(driver.app.screen_stack) == 1, "the end of the sheet before")
    await driver.press("colon")
    await driver.sees("Search")
    await driver.write(words)
    await driver.until(lambda: (rows := driver.app.screen.query(CommandList)) and rows.first().option_count
                       and words in str(rows.first().get_option_at_index(0).prompt), f"{words} as the first row", 15)
    await driver.press("enter")


async def test_every_entry_of_the_list_is_in_the_palette_with_its_key(drive: Any, world: Any) -> None:
    world.run()
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("train loss")
        found = {command.title: command.help for command in driver.app.get_system_commands(driver.app.screen)}
        assert {"stop run  (x)", "compare runs …  (c)", "doctor  (D)", "settings  (,)"} <= set(found)
        assert len([title for title in found if title.startswith("stop")]) == 1


async def test_an_action_of_another_screen_goes_there_first(drive: Any, world: Any) -> None:
    world.run(end="finished")
    async with drive() as driver:
        await choose(driver, "back up now")
        await driver.sees("Back up now?")
        assert driver.app.current_mode == "checkpoints"


async def test_what_is_looked_up_is_shown(drive: Any, world: Any) -> None:
    world.run()
    async with drive((120, 50)) as driver:
        for words, told in (("doctor", "llmconsole doctor"), ("settings", "chat.temperature"),
                            ("show ledger", "Nothing was ever rented")):
            await choose(driver, words)
            await driver.until(lambda: isinstance(driver.app.screen, Sheet), words, 15)
            await driver.sees(told)
            await driver.press("escape")
        await choose(driver, "open paths")
        await driver.until(lambda: isinstance(driver.app.screen, Picker), "the paths")
        await driver.sees("runlog.db")


async def test_a_muted_alert_is_not_shown(drive: Any, world: Any) -> None:
    run = world.run()
    from engine.events import EventWriter

    EventWriter(run.events, run=run.id, stage="03-base_train").alert("warning", "slow", "the disk is slow", "wait")
    async with drive() as driver:
        await driver.press("2")
        await driver.sees("the disk is slow")
        driver.app.action_mute_alert()
        await driver.sees("Muted for 1 h")
        await driver.until(lambda: "last sign of life" in driver.text(), "the line below the alert")


async def test_read_only_by_wish_refuses_and_can_be_switched_off(drive: Any, world: Any) -> None:
    world.run(end="failed")
    async with drive() as driver:
        await choose(driver, "read-only on/off")
        await driver.sees("READ-ONLY")
        await driver.press("2", "s")
        await driver.sees("not done")
        driver.app.action_hands_off()
        await driver.until(lambda: "READ-ONLY" not in driver.text(), "changing again")


async def test_the_bundle_holds_what_helps_and_no_secret(
    drive: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789")
    world.run(end="failed", log=b"token hf_canary0123456789\n")
    async with drive() as driver:
        assert driver.app.cli_here() == "llmconsole status"
        await driver.press("2")
        await driver.sees("train loss")
        assert driver.app.cli_here() == "llmconsole run show tiny-1"
        driver.app.action_bundle()
        await driver.sees("Saved", 15)
        (path,) = driver.app.workspace.home.path.glob("bundle-*.tar.gz")
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers()]
        texts = b"".join(archive.extractfile(member).read() for member in archive.getmembers())  # type: ignore[union-attr]
    assert {"doctor.txt", "runs.txt", "tiny-1/run.json", "tiny-1/03-base_train.log"} <= set(names)
    assert b"canary" not in texts and b"FAILED" in texts


async def test_any_recipe_can_be_started_by_name(drive: Any) -> None:
    async with drive() as driver:
        driver.app.action_choose_recipe()
        await driver.until(lambda: isinstance(driver.app.screen, Picker), "the recipes")
        await driver.write("runcpu")
        await driver.press("enter")
        await driver.sees("run start runcpu", 15)

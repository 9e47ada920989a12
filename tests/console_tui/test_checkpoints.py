"""Screen 4 against real files, real copies and a Hub on loopback that can lie."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import rundir

SAFEKEEPING = Path(__file__).parents[1] / "safekeeping"


def beside(name: str) -> ModuleType:
    """A module of the safekeeping tests, which lie in another folder."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SAFEKEEPING / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def two_checkpoints() -> Path:
    """A run with a base and an SFT model, as the catalogue takes them."""
    base = rundir.base_dir() / "runs" / "tiny-1" / "base"
    for folder, step in (("base_checkpoints/d4", 300), ("chatsft_checkpoints/d4", 850)):
        beside("checkpoint_world").add_checkpoint(base, folder, step, ranks=1)
    return base


@pytest.fixture
def lying_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    hub = beside("fake_hub").FakeHub(tmp_path / "hub")
    hub.serve()
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    yield hub
    hub.close()


async def test_backing_up_proving_losing_and_restoring(drive: Any, two_checkpoints: Path) -> None:
    async with drive(size=(130, 36)) as driver:
        await driver.press("4")
        await driver.sees("exist only in one place")
        await driver.press("b")
        await driver.sees("2 checkpoints without a proven copy")
        await driver.until(lambda: driver.app.focused.id == "typed", "the place to be typed")
        await driver.press("enter")
        await driver.until(lambda: driver.app.focused.id == "backup", "the button")
        await driver.press("enter")
        await driver.sees("✓ 5/5 files")
        await driver.sees("exist only on this disk")  # a copy that a broken disk would take too
        await driver.press("S")
        await driver.sees("NO if the disk breaks")
        shutil.rmtree(two_checkpoints / "chatsft_checkpoints")
        await driver.press("r")
        await driver.until(lambda: driver.app.screen.shelf.items[0].here is None, "the loss to be noticed")
        await driver.press("R")
        await driver.sees("Restore tiny-1/sft/d4@850?")
        await driver.until(lambda: driver.app.focused.id == "yes", "the button")
        await driver.press("enter")
        await driver.sees("is whole in")
    assert (two_checkpoints / "chatsft_checkpoints" / "d4" / "manifest_000850.json").exists()


async def test_the_liar_is_caught_on_screen(drive: Any, two_checkpoints: Path, lying_hub: Any) -> None:
    lying_hub.lie = "garbage"
    async with drive(size=(130, 36)) as driver:
        await driver.press("4")
        await driver.sees("exist only in one place")
        await driver.press("b")
        await driver.sees("Back up now?")
        await driver.until(lambda: driver.app.focused.id == "typed", "the place to be typed")
        await asyncio.sleep(0.3)  # the cursor selects what is there when it arrives
        await driver.press("ctrl+u")
        await driver.write("hub:me/run7")
        await driver.press("enter")
        await driver.until(lambda: driver.app.focused.id == "backup", "the button")
        await driver.press("enter")
        await driver.sees("NOT SAFE: 2 of 2")
        await driver.press("escape")
        await driver.sees("✗")
        text = driver.text()
        assert "exist only in one place" in text and "✓" not in text.replace("✓ FINISHED", "")
        await driver.press("S")
        await driver.sees("would be lost")


async def test_deleting_is_typed_and_pruning_asks(drive: Any, two_checkpoints: Path) -> None:
    async with drive(size=(130, 36)) as driver:
        await driver.press("4")
        await driver.sees("exist only in one place")
        await driver.press("X")
        await driver.sees("loses it for good")
        await driver.until(lambda: driver.app.focused.id == "cancel", "the button")
        await driver.press("shift+tab", "enter")  # Delete, with nothing typed
        await driver.sees("Nothing was deleted")
        assert len(list(two_checkpoints.rglob("model_*.pt"))) == 2
        await driver.press("p")
        await driver.sees("one of the last")
        await driver.press("escape")


async def test_names_and_reasons_from_elsewhere_are_only_text(drive: Any, two_checkpoints: Path) -> None:
    path = two_checkpoints / "base_checkpoints" / "d4" / "meta_000300.json"
    path.write_text(json.dumps({"model_config": "[bold]x\x1b[31m"}))
    async with drive(size=(90, 24)) as driver:
        await driver.press("4")
        await driver.sees("its meta file is damaged")
        assert "\x1b" not in driver.text()

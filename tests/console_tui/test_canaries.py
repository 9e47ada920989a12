"""Four canary secrets and a whole evening: in no process, file, picture or printed word is one of them found.

A rented run and one on this machine, every screen and sheet, a crash of the screen and of a verb, the verbs that talk
about the machine. LLMCONSOLE_CANARY=1 does the same scan over a whole test session; tests/conftest.py.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from console.cli.main import call
from console.machines import preparing
from console.rental import steps as rental_steps
from console.settings import RentSettings
from console.workspace import Workspace
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod

SHAPES = {"RUNPOD_API_KEY": "rpa_CANARY{}", "HF_TOKEN": "hf_CANARY{}", "WANDB_API_KEY": "{}CANARYwandb",
          "OPENROUTER_API_KEY": "sk-or-v1-CANARY{}"}
STAND_IN = """
import json, os, sys, time
run = sys.argv[1]
stages = json.load(open(run + "/run.json"))["stages"]
stage = stages[0]["id"]
os.makedirs(run + "/logs", exist_ok=True)
with open(run + f"/logs/{stage}.log", "a") as f:
    f.write("\\n".join(f"{name}={value}" for name, value in os.environ.items() if "API_KEY" not in name
                       and "TOKEN" not in name) + "\\n")
def emit(seq, kind, data, stage=None, step=None):
    row = {"v": 1, "seq": seq, "t": time.time(), "mono": 0, "run": "r", "attempt": 1, "stage": stage, "kind": kind,
           "step": step, "data": data}
    with open(run + "/events.jsonl", "a") as f:
        f.write(json.dumps(row) + "\\n")
emit(1, "run", {"state": "started", "stages": stages})
emit(2, "stage", {"state": "started", "index": 1, "title": "Base"}, stage)
for step in range(10):
    emit(3 + step, "metric", {"loss": 3.0 - step / 10}, stage, step)
    time.sleep(0.1)
emit(20, "stage", {"state": "finished", "seconds": 0.1, "exit_code": 0}, stage)
emit(21, "run", {"state": "finished", "exit_code": 0})
"""


class Watch(threading.Thread):
    """Reads the command line and the environment of every process that comes, many times a second.

    It looks for values that nobody else on this machine can have, so other people's processes do no harm.
    """

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._values = {name: value.encode() for name, value in values.items()}
        self._ended = threading.Event()
        self.looks, self.seen = 0, set[str]()
        self.found: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(0.005):
            self.looks += 1
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    self._look(process)

    def _look(self, process: Path) -> None:
        try:
            line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            return
        self.seen.add(process.name)
        told = line.replace(b"\0", b" ").decode("utf-8", "replace")
        self.found += [f"{name} in the command line of {told}" for name, value in self._values.items() if value in line]
        if self._values["RUNPOD_API_KEY"] in environment:  # a run here may need the others, and has them from the user
            self.found.append(f"the account's key in the environment of {told}")

    def stop(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {name: shape.format(secrets.token_hex(12)) for name, shape in SHAPES.items()}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    return found


@pytest.fixture
def renting(canaries: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    import remote.bootstrap

    recipes = tmp_path / "home" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "short.toml").write_text('title = "Short"\ndisk_gb = 0.001\n[[stage]]\nstage = "base_train"\n')
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    cloud = FakeCloud(tmp_path / "cloud", placing_s=0.2, pulling_s=0.2)
    with FakeRunPod(cloud, key=canaries["RUNPOD_API_KEY"]) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        yield cloud


async def every_screen(driver: Any, pictures: list[str]) -> None:
    """A picture of each screen, of the help and of what opens over it."""
    for key in "123456":
        await driver.press(key)
        await driver.pilot.pause(0.15)
        pictures.append(driver.app.export_screenshot())
        await driver.press("f1")
        await driver.pilot.pause(0.1)
        pictures.append(driver.app.export_screenshot())
        await driver.press("escape")
    await driver.press("1")
    for key in ("ctrl+p", "t", "A", "r"):
        await driver.press(key)
        await driver.pilot.pause(0.2)
        pictures.append(driver.app.export_screenshot())
        await driver.press("escape")
        await driver.pilot.pause(0.05)


async def typed_into_the_wrong_field(driver: Any, value: str) -> None:
    """A person pastes the key where a machine's address belongs; it goes nowhere but to the screen."""
    driver.app.action_add_target()
    await driver.until(lambda: driver.app.screen.query("#typed"), "the sheet")
    driver.app.screen.query_one("#typed", Input).value = value
    driver.app.screen.query_one("#look").press()
    await driver.pilot.pause(0.3)
    await driver.press("escape")


async def rent(driver: Any, cloud: FakeCloud, workspace: Workspace, pictures: list[str]) -> None:
    object.__setattr__(driver.app.settings.run, "recipe", "short")
    object.__setattr__(driver.app.settings, "rent", RentSettings(gpus="2xA100"))
    workspace.hosts.targets.use("runpod")
    await driver.press("1", "s")
    await driver.sees("EU-RO-1", 20)
    sheet = driver.app.screen
    sheet.query_one("#usd", Input).value, sheet.query_one("#hours", Input).value = "20", "2"
    await driver.until(lambda: not sheet.query_one("#yes").disabled, "an allowed quote", 20)
    pictures.append(driver.app.export_screenshot())
    sheet.query_one("#yes").press()
    await driver.sees("of $20", 20)
    driver.app.action_limit_rental()
    await driver.pilot.pause(0.2)
    pictures.append(driver.app.export_screenshot())
    await driver.press("escape")
    await every_screen(driver, pictures)
    await driver.until(lambda: workspace.operator.rentals.book.unsettled() == [] and cloud.creates == 1, "its end", 90)


def verbs(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """What prints facts of this machine and the account, and one that breaks with a secret in its hands."""
    for words in (["doctor"], ["doctor", "--json"], ["config", "show"], ["config", "show", "--json"],
                  ["cost", "show", "--json", "--offline"], ["cost", "show"], ["target", "list", "--json"],
                  ["run", "list", "--json"], ["status", "--json"], ["ckpt", "list", "--json"]):
        call(words)
    from console.cli import config

    def broken(*_: object) -> None:
        held = value
        raise LookupError(f"while holding {held}")

    monkeypatch.setattr(config, "present", broken)
    assert call(["config", "show"]) != 0


def files_with(folder: Path, values: dict[str, str]) -> list[str]:
    found, names = [], [path for path in folder.rglob("*") if path.is_file()]
    assert len(names) > 20
    for path in names:
        data = path.read_bytes()
        found += [f"{name} in {path}" for name, value in values.items() if value.encode() in data]
    return found


async def test_no_process_file_picture_or_word_shows_a_secret(
        drive: Callable[..., Any], canaries: dict[str, str], renting: FakeCloud, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    watch, pictures = Watch(canaries), list[str]()
    watch.start()
    script = str(tmp_path / "stand_in.py")
    with Workspace.open(pipeline=lambda python, run: [sys.executable, "-I", "-S", script, run]) as workspace:
        operator = workspace.operator
        operator.start(operator.plan("short", run_id="here"))
        async with drive((120, 36), workspace) as driver:
            await rent(driver, renting, workspace, pictures)
            await driver.until(lambda: not operator.state("here", fresh=True).alive, "the end of the run here", 20)
            await every_screen(driver, pictures)
            await typed_into_the_wrong_field(driver, canaries["RUNPOD_API_KEY"])
        with pytest.raises(ValueError, match="bad"):
            async with drive((120, 36), workspace) as driver:
                driver.app.call_later(break_with, list(canaries.values()))
                await driver.until(lambda: driver.app._exception, "the crash")
    verbs(monkeypatch, canaries["HF_TOKEN"])
    time.sleep(0.1)
    watch.stop()
    printed = "".join(capfd.readouterr())
    assert watch.found == [] and watch.looks > 50 and len(watch.seen) > 20
    assert files_with(tmp_path, canaries) == []
    assert list((tmp_path / "home" / "crash").iterdir())
    assert len(pictures) > 25 and all("<svg" in picture for picture in pictures)
    for name, value in canaries.items():
        assert value not in printed, name
        assert not any(value in picture for picture in pictures), name


def break_with(values: list[str]) -> None:
    first, *_ = values
    raise ValueError(f"bad {first} and {values}")


def test_the_watch_sees_what_is_leaked(canaries: dict[str, str], tmp_path: Path) -> None:
    watch = Watch(canaries)
    watch.start()
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", canaries["HF_TOKEN"]], check=True)
    watch.stop()
    assert any("HF_TOKEN in the command line" in text for text in watch.found)
    assert any("the account's key in the environment" in text for text in watch.found)

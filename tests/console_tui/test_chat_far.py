"""The same pipe over a real SSH server, to a model that lies on the other machine: `chat --target` and the screen."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from console.chat.client import ChatClient
from console.chat.launch import launcher
from console.chat.model_choice import models_of, place_of
from console.cli.main import call
from console.exit_codes import Exit
from console.machines.targets import SSH, Target, Targets
from engine.fit import NOWHERE, bytes_needed
from remote.ssh.known_hosts import KnownHosts

TESTS = Path(__file__).parents[1]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("far_" + path.parent.name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def far(tmp_path: Path) -> Any:
    """A prepared target with one model that says `Hi`."""
    box = load(TESTS / "remote" / "conftest.py").start_sshd(tmp_path / "box")
    home = tmp_path / "home"
    KnownHosts(home / "known_hosts").pin("box", box.host_key)
    Targets(home).put(Target("box", SSH, box.route().user, "127.0.0.1", box.port, str(box.key),
                             base=str(box.folder / "base"), python=(sys.executable,)))
    engine = load(TESTS / "engine" / "inference" / "conftest.py")
    engine.save_chain.__wrapped__()(box.folder / "base", 5, [*b"Hi", 260])
    yield box
    box.process.kill()
    box.process.wait()


def test_a_model_there_answers(far: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["chat", "--target", "box", "-m", "d1", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == "Hi\n" and "sft/d1@5" in err
    assert call(["chat", "--target", "box", "-m", "nope", "hello"]) == Exit.NOT_FOUND
    assert "no model 'nope'" in capsys.readouterr().err
    assert call(["chat", "--target", "nowhere", "hello"]) == Exit.NOT_FOUND


async def test_the_screens_client_hears_it_and_its_end(far: Any) -> None:
    heard: list[Any] = []
    died: list[str] = []
    client = ChatClient(heard.append, died.append, launcher("box"))
    await client.start()
    client.send({"op": "models"})

    async def until(holds: Any) -> None:
        for _ in range(1000):
            if holds():
                return
            await asyncio.sleep(0.02)
        raise AssertionError((heard, died))

    await until(lambda: heard and heard[-1]["event"] == "models")
    assert heard[-1]["models"][0]["ref"] == "sft/d1@5"
    [model], place = models_of(heard[-1]), place_of(heard[-1])
    assert place.free > (bytes_needed(model, place.kind) or 0) > model.bytes, "so the picker can say whether it fits"
    assert models_of({"models": [{"ref": "x"}, 7]}) == [] and place_of({}) == NOWHERE, "another version's words"
    for process in psutil.Process(far.process.pid).children(recursive=True):
        if "chat" in process.cmdline():
            process.kill()
    await until(lambda: died)
    assert not client.alive


async def test_the_screen_talks_to_a_model_there(drive: Any, world: Any, far: Any) -> None:
    world.run(end="finished")
    async with drive((150, 36)) as driver:
        await driver.press("5")
        await driver.sees("tiny-1 sft @100 is ready to talk")
        await driver.press("ctrl+o")
        await driver.sees("models of box")
        await driver.write("box")
        await driver.press("enter")
        await driver.sees("looking for models there")
        await driver.until(lambda: "d1" in driver.text() or "chatsft" in driver.text(), "its models", 30)
        await driver.press("enter")
        await driver.sees(" on box", 30)
        await driver.write("hello")
        await driver.press("enter")
        await driver.until(lambda: "Hi\n" in driver.app.screen.session.conversation.turns[-1].text + "\n", "Hi", 30)
        await driver.press("f8")
        await driver.sees("http://127.0.0.1:", 30)
        url = re.findall(r"http://127\.0\.0\.1:\d+", driver.text())[0]
        health = await asyncio.to_thread(httpx.get, f"{url}/health")
        assert health.json()["ready"], "a browser here reaches the model there"
        await driver.press("f8")
        await driver.sees("the page is closed")
        await driver.press("ctrl+o")
        await driver.sees("models of this machine")


async def test_a_machine_that_does_not_answer_is_told(drive: Any, world: Any, far: Any) -> None:
    world.run(end="finished")
    far.process.kill()
    far.process.wait()
    async with drive((150, 36)) as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.press("ctrl+o")
        await driver.sees("models of box")
        await driver.write("box")
        await driver.press("enter")
        await driver.sees("No models from box", 30)

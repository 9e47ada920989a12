"""Text from elsewhere reaches every widget as plain text: markup, escapes, bidi, wide glyphs, endless lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from console import crash
from engine.events import EventWriter

CORPUS = [
    "[/]",
    "[0] hello",
    "[red]x[/red]",
    "[/foo]",
    "[@click=app.quit()]x[/]",
    "[b",
    "\x1b[31mred\x1b[0m",
    "\x1b]52;c;eA==\x07",
    "\x9b2Jgone",
    "\x07bell",
    "\u202egnp.exe",
    "a\u200bb",
    "漢字漢字",
    "🙂" * 40,
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "x" * 100_000,
    "{0!r}",
    "$primary",
    "tab\there",
    "\r\rover",
]


@pytest.mark.parametrize("mode", ["home", "run", "logs", "checkpoints", "chat", "activity"])
async def test_no_screen_obeys_or_chokes(drive: Any, world: Any, mode: str) -> None:
    log = "\n".join(CORPUS).encode("utf-8", "replace") + b"\n\xff\xfe\x80\n" + b"y" * (1 << 20) + b"\n"
    run = world.run(title="[/bad] \x1b[31mtitle", log=log)
    writer = EventWriter(run.events, run=run.id, stage="03-base_train")
    for text in CORPUS:
        writer.alert("warning", text[:50], text, text)
        writer.emit("sample", {"prompt": text, "text": text}, step=1)
        writer.emit("metric", {"[/odd] \x1b[31m": 1.0, "loss": 1.0}, step=61)
        writer.emit(
            "checkpoint",
            {"source": "base", "tag": text[:20], "dir": text[:40], "files": [], "bytes": 1, "manifest": text[:20]},
            step=60,
        )
    writer.emit("stage", {"state": "progress", "done": 1, "total": 2, "unit": "[/unit]\x1b[1m", "eta_s": 1.0})
    odd = run.base / "base_checkpoints" / "[red]"
    odd.mkdir(parents=True)
    async with drive((100, 30)) as driver:
        driver.app.switch_mode(mode)
        await driver.pilot.pause(0.4)
        await driver.press("n", "N", "down", "up")
        await driver.pilot.pause(0.2)
        text = driver.text()
        assert not [char for char in text if char in "\x1b\x9b\x07\u202e\u200b\r"]
        assert driver.app.is_running and "llmconsole" in text


async def test_notices_and_refusals_are_plain(drive: Any, world: Any) -> None:
    from console.messages import ActionRefused

    async with drive() as driver:
        for text in CORPUS[:12]:
            driver.app.post_message(ActionRefused(text, text))
        await driver.pilot.pause(0.2)
        assert driver.app.is_running


def test_a_crash_dump_has_no_locals_no_secrets_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-token-value")
    try:
        secret_local = "only-a-local-" + "variable"
        raise ValueError(f"bad [/thing] canary-token-value hf_abcdefgh1234 {len(secret_local)}\x1b[31m")
    except ValueError as error:
        told = crash.kind_sentence(tmp_path, error)
    (dump,) = (tmp_path / "crash").iterdir()
    text = dump.read_text()
    assert dump.stat().st_mode & 0o777 == 0o600
    for secret in ("canary-token-value", "hf_abcdefgh1234", "only-a-local-variable", "\x1b"):
        assert secret not in text and secret not in told
    assert "ValueError" in text and str(dump) in told


async def test_an_error_in_the_app_ends_in_a_sentence_not_in_a_dump_on_screen(drive: Any, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with drive() as driver:
            app = driver.app
            app.call_later(lambda: 1 / 0)
            await driver.until(lambda: app._exception, "the end")
    assert "ZeroDivisionError" in next((tmp_path / "home" / "crash").iterdir()).read_text()

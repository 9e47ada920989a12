"""config.toml is strict, and says file, line and nearest name when something is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.credentials import present
from console.errors import UsageProblem
from console.settings import SECRET_NAMES, load


def test_without_a_file_everything_is_default(tmp_path: Path) -> None:
    settings = load(tmp_path / "config.toml")
    assert settings.run.recipe == "tiny"
    assert {origin for _, _, origin, _ in settings.rows()} == {"default"}


def test_values_know_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("# mine\n[chat]\ntemperature = 0\n\n[run]\nrecipe = \"mine\"\n")
    settings = load(path)
    assert settings.chat.temperature == 0.0 and settings.run.recipe == "mine"
    origins = {name: origin for name, _, origin, _ in settings.rows()}
    assert origins["chat.temperature"] == f"{path}:3" and origins["run.recipe"] == f"{path}:6"
    assert origins["chat.top_k"] == "default"


@pytest.mark.parametrize(("text", "message"), [
    ("[chta]\n", ":1: unknown section 'chta'; did you mean chat?"),
    ("[chat]\ntop-k = 5\n", ":2: unknown setting 'top-k' in [chat]; did you mean top_k?"),
    ("[chat]\n\ntemperature = \"hot\"\n", ":3: temperature=hot: expected a number"),
    ("[chat]\ntop_k = 0\n", ":2: top-k=0: must be at least 1"),
    ("chat = 3\n", ":1: chat is a section"),
    ("[chat\n", "not TOML"),
])
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageProblem) as caught:
        load(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_secrets_are_named_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from console.cli.main import call

    for name in SECRET_NAMES:
        monkeypatch.setenv(name, "canary-7f3a")
    assert all(present().values())
    assert call(["config", "show"]) == 0 and call(["config", "show", "--json"]) == 0 and call(["doctor"]) in (0, 1)
    assert "canary" not in "".join(capsys.readouterr())

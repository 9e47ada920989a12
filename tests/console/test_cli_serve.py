"""`serve` becomes the engine's server: which words it is started with, and what is refused before."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from console.cli import serve as cli_serve
from console.cli.main import call
from console.exit_codes import Exit
from engine.catalog import DIRECTORIES
from engine.config import from_argv
from engine.rundir import base_dir
from engine.settings.serving import Serve


@pytest.fixture
def save_files() -> Any:
    """Files that the catalog takes for a checkpoint."""

    def save(source: str, tag: str, step: int) -> None:
        folder = base_dir() / DIRECTORIES[source] / tag
        folder.mkdir(parents=True, exist_ok=True)
        (base_dir() / "tokenizer").mkdir(exist_ok=True)
        (base_dir() / "tokenizer" / "tokenizer.pkl").write_bytes(b"x")
        shape = {"sequence_len": 256, "vocab_size": 1024, "n_layer": 4, "n_head": 2, "n_kv_head": 2, "n_embd": 256}
        (folder / f"model_{step:06d}.pt").write_bytes(b"w")
        (folder / f"meta_{step:06d}.json").write_text(json.dumps({"step": step, "model_config": shape}))

    return save


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    words: list[list[str]] = []
    monkeypatch.setattr(cli_serve, "_become", words.append)
    monkeypatch.setattr(cli_serve, "choose", lambda name, *more: SimpleNamespace(ref=f"run/{name}@1"))
    return words


def test_the_server_gets_what_was_asked_for(started: list[list[str]]) -> None:
    assert call(["serve", "-m", "sft", "-m", "base", "-p", "0", "--rows", "3", "-t", "0.2", "-k", "9"]) == 0
    [words] = started
    assert words[:4] == [sys.executable, "-m", "engine", "serve"]
    settings = from_argv(Serve, words[4:])
    assert settings == Serve(model="run/sft@1,run/base@1", port=0, rows=3, temperature=0.2, top_k=9)


def test_defaults_need_no_words(started: list[list[str]]) -> None:
    assert call(["serve"]) == 0 and started[0][4:] == []


def test_nanochats_flags_name_a_model(started: list[list[str]]) -> None:
    assert call(["serve", "-i", "rl", "-g", "d20", "-s", "7", "-d", "bfloat16"]) == 0
    assert started[0][4:] == ["--model=run/None@1", "--dtype=bfloat16"]


def test_there_must_be_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["serve"]) == Exit.NOT_FOUND
    assert "no trained model" in capsys.readouterr().err
    assert call(["serve", "--port", "99999"]) == Exit.USAGE


def test_names_are_near(save_files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_files("sft", "d4", 100)
    save_files("sft", "d4", 200)
    save_files("base", "d8", 50)
    from console.chat.model_choice import choose

    assert choose(None).ref == "sft/d4@200" and choose("d8").step == 50
    assert choose(None, source="base").tag == "d8" and choose(None, step=100).ref == "sft/d4@100"
    assert choose("d4", tag="d4").step == 200
    for words, said in (["-m", "sft/d5@200"], "did you mean sft/d4@200"), (["-i", "rl"], "no model of source rl"):
        assert call(["serve", *words]) == Exit.NOT_FOUND and said in capsys.readouterr().err

"""`tokens`: a text, a file or a conversation as tokens, on screen and as JSON, and nothing that harms a terminal."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from console.cli.main import call
from console.exit_codes import Exit

FOLDER = Path(__file__).parents[1] / "fixtures" / "tokenizer"
Captured = pytest.CaptureFixture[str]
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    monkeypatch.setenv("LLMCONSOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "base" / "tokenizer").mkdir(parents=True)
    shutil.copy(FOLDER / "tokenizer.pkl", tmp_path / "base" / "tokenizer")
    return tmp_path / "base"


def shown(capsys: Captured, *words: str) -> dict[str, Any]:
    assert call(["tokens", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("base")
def test_a_text(capsys: Captured) -> None:
    assert call(["tokens", "the caf\u00e9"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "the caf<c3><a9>"
    assert "bytes per token" in err
    body = shown(capsys, "the caf\u00e9")
    assert bytes.fromhex("".join(t["bytes"] for t in body["tokens"])).decode() == "the caf\u00e9"
    assert body["count"] == len(body["tokens"]) and body["vocab_size"] == 1024
    assert {t["mask"] for t in body["tokens"]} == {None}


@pytest.mark.usefixtures("base")
def test_a_conversation_has_a_mask(capsys: Captured) -> None:
    body = shown(capsys, json.dumps(TALK))
    assert [t["text"] for t in body["tokens"] if t["special"]] == [
        "<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"]
    assert "".join(t["text"] for t in body["tokens"] if t["mask"]) == "Hello there<|assistant_end|>"


@pytest.mark.usefixtures("base")
def test_stdin_and_files(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("from a file")
    assert "".join(t["text"] for t in shown(capsys, str(tmp_path / "a.txt"))["tokens"]) == "from a file"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from stdin"), isatty=lambda: False))
    assert "".join(t["text"] for t in shown(capsys, "-")["tokens"]) == "from stdin"
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    assert call(["tokens", str(tmp_path / "a.txt")]) == Exit.WORK_FAILED
    assert "not UTF-8: byte 2" in capsys.readouterr().err


@pytest.mark.usefixtures("base")
def test_control_characters_are_written_out(capsys: Captured) -> None:
    assert call(["tokens", "a\x1b]0;title\x07b\u202ec\r"]) == 0
    out = capsys.readouterr().out
    assert not any(bad in out for bad in ("\x1b", "\x07", "\u202e", "\r"))


def test_what_is_wrong_is_said(base: Path, capsys: Captured) -> None:
    assert call(["tokens", json.dumps(TALK[1:])]) == Exit.USAGE
    assert "no conversation: message 0" in capsys.readouterr().err
    assert call(["tokens", "x", "-m", "nothing"]) == Exit.NOT_FOUND
    (base / "tokenizer" / "tokenizer.pkl").write_bytes(b"cos\nsystem\n.")
    assert call(["tokens", "x"]) == Exit.WORK_FAILED
    shutil.rmtree(base / "tokenizer")
    assert call(["tokens", "x"]) == Exit.NOT_FOUND
    assert "no tokenizer" in capsys.readouterr().err

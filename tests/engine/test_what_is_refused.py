"""Checkpoints and tokenizers that a stage cannot start from: which file, which key, what was expected and found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.__main__ import main
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary

SFT = ["chat_sft", "--max-seq-len=32", "--device-batch-size=2", "--total-batch-size=64", "--num-iterations=1",
       "--device-type=cpu", "--dtype=float32", "--eval-tokens=64"]  # fmt: skip
MATRIX = "transformer.h.0.mlp.c_fc.weight"


def of_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage that changes what the model file holds; the manifest goes, as if nanochat had written it."""

    def damage(folder: Path) -> None:
        path = folder / "model_000005.pt"
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
        (folder / "manifest_000005.json").unlink()

    return damage


def of_meta(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "meta_000005.json"
        meta = json.loads(path.read_text())
        change(meta["model_config"])
        path.write_text(json.dumps(meta))
        (folder / "manifest_000005.json").unlink()

    return damage


def flipped(folder: Path) -> None:
    path = folder / "model_000005.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def without_meta(folder: Path) -> None:
    (folder / "manifest_000005.json").unlink()
    (folder / "meta_000005.json").unlink()


def a_text(folder: Path) -> None:
    (folder / "manifest_000005.json").unlink()
    (folder / "model_000005.pt").write_text("hello")


@pytest.mark.parametrize(("damage", "words"), [
    (flipped, "model_000005.pt does not match its manifest"),
    (a_text, "model_000005.pt cannot be read"),
    (without_meta, "holds no complete checkpoint: model_000005.pt has neither a manifest nor a meta file"),
    (of_state(lambda s: s.pop(MATRIX)), f"model_000005.pt: the checkpoint has no {MATRIX}"),
    (of_state(lambda s: s.update({MATRIX: torch.zeros(3, 5)})),
     f"model_000005.pt: {MATRIX}: expected shape (64, 16), found (3, 5)"),
    (of_state(lambda s: s.update(strange=torch.zeros(1))), "model_000005.pt: the checkpoint has an unknown tensor"),
    (of_state(lambda s: s.update({MATRIX: "text"})), f"model_000005.pt: {MATRIX}: expected a tensor, found str"),
    (of_meta(lambda c: c.update(n_layer=2)), "model_000005.pt: the checkpoint has no transformer.h.1."),
    (of_meta(lambda c: c.update(n_head="two")), "meta_000005.json: model_config: "),
    (of_meta(lambda c: c.update(moe=8)), "meta_000005.json: model_config: model_config has fields"),
])  # fmt: skip
def test_a_checkpoint_is_named_with_what_is_wrong(
    byte_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None], words: str,
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(byte_base))
    damage(byte_base / "mid_checkpoints" / "d1")
    assert main(SFT) == 1
    told = capsys.readouterr().err
    assert words in told and str(byte_base / "mid_checkpoints" / "d1") in told and "Traceback" not in told


@pytest.mark.parametrize(("recorded", "words"), [
    (True, "was trained with another tokenizer (sha256 "), (False, "was trained with another tokenizer (265 tokens, ")])
def test_another_tokenizer_is_refused(
    byte_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: bool, words: str
) -> None:
    """By its hash or, where nanochat wrote the checkpoint and recorded none, by the number of its tokens."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(byte_base))
    if not recorded:
        (byte_base / "mid_checkpoints" / "d1" / "manifest_000005.json").unlink()
    ranks = {**{bytes([i]): i for i in range(256)}, b"ab": 256}
    specials = {name: 257 + i for i, name in enumerate(SPECIAL_TOKENS)}
    Tokenizer(Vocabulary(SPLIT_PATTERN, ranks, specials)).save(byte_base / "tokenizer")
    assert main(SFT) == 1
    told = capsys.readouterr().err
    assert words in told and "use the tokenizer it came with" in told


def test_a_misspelled_task_of_chat_eval_names_the_nearest(
    byte_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(byte_base))
    assert main(["chat_eval", "-a", "MMLUU"]) == 2
    assert "no benchmark task; did you mean MMLU?" in capsys.readouterr().err

"""A checkpoint is there whole or not at all, and damage is always noticed."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch

from engine.context import StageError
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.train import checkpoint
from engine.train.checkpoint import CheckpointError


@pytest.fixture
def model() -> GPT:
    model = GPT(GPTConfig(16, 32, 1, 2, 2, 16))
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def save(folder: Path, step: int, model: GPT) -> checkpoint.Saved:
    meta = {"step": step, "model_config": model.config.to_dict()}
    return checkpoint.save_checkpoint(
        folder,
        step,
        source="base",
        model=model.state_dict(),
        meta=meta,
        optimizers={0: [{"state": {}}]},
        tokenizer_sha256="t",
    )


def test_what_is_saved_is_loaded(tmp_path: Path, model: GPT) -> None:
    saved = save(tmp_path / "d1", 10, model)
    assert sorted(saved.files) == ["meta_000010.json", "model_000010.pt", "optim_000010_rank0.pt"]
    loaded, meta = checkpoint.load_model(tmp_path / "d1", 10)
    assert meta["step"] == 10
    for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_newest_valid_skips_what_is_damaged_or_unfinished(tmp_path: Path, model: GPT) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, model)
    assert checkpoint.newest_valid(tmp_path) == 30
    (tmp_path / "manifest_000030.json").unlink()  # a crash before the commit
    assert checkpoint.newest_valid(tmp_path) == 20
    (tmp_path / "optim_000020_rank0.pt").write_bytes(b"")  # a file that lost its bytes
    assert checkpoint.newest_valid(tmp_path) == 10
    (tmp_path / "manifest_000010.json").write_text("{")  # a manifest cut off
    assert checkpoint.newest_valid(tmp_path) is None


# LLMCONSOLE_DAMAGES=10000 tries as many as the goal asks for; it takes some ten seconds.
DAMAGES = int(os.environ.get("LLMCONSOLE_DAMAGES", 400))


def test_every_bit_flip_and_truncation_is_detected(tmp_path: Path, model: GPT) -> None:
    """In any file, the manifest too; what is damaged is never the newest."""
    save(tmp_path, 5, model)
    save(tmp_path, 10, model)
    checkpoint.record_evaluation(tmp_path, 10, 0.71804)
    generator = random.Random(0)
    files = sorted(f for f in tmp_path.iterdir() if "000010" in f.name)
    assert len(files) == 4
    for i in range(DAMAGES):
        path = generator.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        if i % 2:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        else:
            del data[generator.randrange(len(data)) :]
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.verify(tmp_path, 10)
        assert i % 50 or checkpoint.newest_valid(tmp_path) == 5
        path.write_bytes(whole)


def test_a_foreign_checkpoint_loads_without_a_manifest(fixtures: Path) -> None:
    folder = fixtures / "eras" / "seed"
    assert checkpoint.list_steps(folder) == [10]
    model, _ = checkpoint.load_model(folder, 10)
    assert model.config.n_layer == 5


def test_a_compiled_models_prefix_is_dropped(tmp_path: Path, model: GPT) -> None:
    torch.save({f"_orig_mod.{k}": v for k, v in model.state_dict().items()}, tmp_path / "model_000001.pt")
    (tmp_path / "meta_000001.json").write_text(json.dumps({"model_config": model.config.to_dict()}))
    assert checkpoint.load_model(tmp_path, 1)[0].n_params() == model.n_params()


class Gadget:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


@pytest.mark.parametrize("content", [b"", b"not a zip", [1, 2], {"a": "text"}, Gadget()])
def test_foreign_content_is_refused_and_never_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    path = tmp_path / "model_000001.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    (tmp_path / "meta_000001.json").write_text(json.dumps({"model_config": GPTConfig().to_dict()}))
    with pytest.raises(CheckpointError, match="model_000001"):
        checkpoint.load_model(tmp_path, 1)
    assert "executed" not in capsys.readouterr().out


def test_a_full_disk_leaves_earlier_checkpoints_alone(
    tmp_path: Path, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 10, model)
    original = torch.save

    def full(value: object, f: object) -> None:
        original(value, f)
        raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StageError, match="earlier checkpoints are untouched"):
        save(tmp_path, 20, model)
    assert checkpoint.newest_valid(tmp_path) == 10
    assert not list(tmp_path.glob(".*.tmp"))


def test_tags_are_guessed_as_nanochat_does(tmp_path: Path) -> None:
    for name in ("d4", "d20", "other"):
        (tmp_path / name).mkdir()
    assert checkpoint.find_tag(tmp_path).name == "d20"
    assert checkpoint.find_tag(tmp_path, "other").name == "other"
    with pytest.raises(CheckpointError, match="no checkpoints called"):
        checkpoint.find_tag(tmp_path, "d99")
    with pytest.raises(CheckpointError, match="run the stage"):
        checkpoint.resolve(tmp_path.parent, "base")


def test_a_later_evaluation_is_added_to_the_manifest(tmp_path: Path, model: GPT) -> None:
    save(tmp_path, 10, model)
    checkpoint.record_evaluation(tmp_path, 10, 0.5)
    assert checkpoint.read_manifest(tmp_path, 10)["val_bpb"] == 0.5
    checkpoint.verify(tmp_path, 10)

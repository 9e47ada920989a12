"""Listing, choosing and naming models, with file trees made by hand: real ones, damaged ones and hostile ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.catalog import DIRECTORIES, default_model, find, list_models
from engine.config import ConfigError

CONFIG = {"sequence_len": 256, "vocab_size": 900, "n_layer": 4, "n_head": 2, "n_kv_head": 1, "n_embd": 256}
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes the files of one checkpoint the way the training stages do, with a stand-in for the weights."""

    def write(source: str = "sft", step: int = 300, *, tag: str = "d4", run: str | None = None, created: float = 1000.0,
              manifest: bool = True) -> Path:
        base = tmp_path / "runs" / run / "base" if run else tmp_path
        (base / "tokenizer").mkdir(parents=True, exist_ok=True)
        (base / "tokenizer" / "tokenizer.pkl").touch()
        folder = base / DIRECTORIES[source] / tag
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"model_{step:06d}.pt").write_bytes(b"w" * 100)
        meta = {"step": step, "val_bpb": 0.5, "model_config": CONFIG}
        (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
        names = [f"model_{step:06d}.pt", f"meta_{step:06d}.json"]
        if manifest:
            files = {n: {"bytes": (folder / n).stat().st_size, "sha256": "0" * 64} for n in names}
            files[f"optim_{step:06d}_rank0.pt"] = {"bytes": 7, "sha256": "0" * 64}  # deleted to save space: no problem
            body = {"v": 1, "step": step, "source": source, "files": files, "created": created}
            (folder / f"manifest_{step:06d}.json").write_text(json.dumps(body))
        for name in names:
            os.utime(folder / name, (created, created))
        return folder

    return write


def test_a_run_and_the_base_directory_are_both_listed(tmp_path: Path, save: Save) -> None:
    save("sft", 300, run="tiny-1", created=2000)
    save("base", 21400, tag="d20", manifest=False, created=1000)
    ours, foreign = list_models(tmp_path)
    assert (ours.ref, ours.source, ours.tag, ours.step, ours.run_id) == ("tiny-1/sft@300", "sft", "d4", 300, "tiny-1")
    assert ours.path == tmp_path / "runs/tiny-1/base/chatsft_checkpoints/d4"
    assert ours.tokenizer_dir == tmp_path / "runs/tiny-1/base/tokenizer"
    assert (ours.bytes, ours.created, ours.val_bpb, ours.verified, ours.problem) == (100, 2000, 0.5, True, None)
    assert ours.config is not None and ours.config.to_dict() == CONFIG
    assert (foreign.ref, foreign.run_id, foreign.verified, foreign.problem) == ("base/d20@21400", None, False, None)
    assert foreign.created == 1000


def test_n_params_are_those_of_the_model(tmp_path: Path, save: Save) -> None:
    from engine.model.config import GPTConfig
    from engine.model.gpt import GPT

    save()
    [model] = list_models(tmp_path)
    assert model.n_params == GPT(GPTConfig(**CONFIG)).n_params()


def test_refs_are_unique_and_findable(tmp_path: Path, save: Save) -> None:
    save("sft", 100, run="a"), save("sft", 200, run="a"), save("base", 100, run="a")
    save("sft", 100, run="b", tag="d4"), save("sft", 100, run="b", tag="d6")
    save("base", 100, run="sft", tag="d4"), save("sft", 100, tag="base"), save("base", 100)
    models = list_models(tmp_path)
    refs = [m.ref for m in models]
    assert len(set(refs)) == len(models) == 8
    assert {"a/sft@200", "b/sft/d6@100", "runs/sft/base@100", "sft/base@100", "base/d4@100"} <= set(refs)
    assert all(find(models, m.ref) is m for m in models)


def test_find_by_beginning_by_part_and_by_last_step(tmp_path: Path, save: Save) -> None:
    save("sft", 100, run="tiny-20261121"), save("sft", 200, run="tiny-20261121"), save("mid", 150, run="other")
    models = list_models(tmp_path)
    assert find(models, "oth").ref == "other/mid@150"
    assert find(models, "mid").ref == "other/mid@150"
    assert find(models, "tiny").ref == "tiny-20261121/sft@200", "the last step of the only model that fits"
    assert find(models, "sft@100").ref == "tiny-20261121/sft@100"
    with pytest.raises(ConfigError, match="fits 3 models"):
        find(models, "/")
    with pytest.raises(ConfigError, match="did you mean tiny-20261121/sft@"):
        find(models, "tinny-20261121/sft@200")
    with pytest.raises(ConfigError, match="there are: "):
        find(models, "zzz")
    with pytest.raises(ConfigError, match="no model"):
        find(models, "")
    with pytest.raises(ConfigError, match="none yet"):
        find([], "x")


def test_default_is_the_most_trained_of_the_newest_run(tmp_path: Path, save: Save) -> None:
    assert default_model([]) is None
    save("rl", 10, run="old", created=100)
    for source, step, created in (("base", 500, 200), ("mid", 300, 210), ("sft", 100, 220), ("sft", 200, 230),
                                  ("base", 600, 240)):
        save(source, step, run="new", created=created)
    models = list_models(tmp_path)
    assert [m.created for m in models] == sorted((m.created for m in models), reverse=True)
    chosen = default_model(models)
    assert chosen is not None and chosen.ref == "new/sft@200"
    (chosen.path / "model_000200.pt").write_bytes(b"cut")
    chosen = default_model(list_models(tmp_path))
    assert chosen is not None and chosen.ref == "new/sft@100"


def test_a_run_that_only_begins_does_not_hide_the_model_that_can_chat(tmp_path: Path, save: Save) -> None:
    save("base", 500, run="done", created=100)
    save("sft", 200, run="done", created=110)
    save("base", 50, run="begun", created=200)
    chosen = default_model(list_models(tmp_path))
    assert chosen is not None and chosen.ref == "done/sft@200"


@pytest.mark.parametrize(("name", "content", "problem"), [
    ("meta_000300.json", b"{", "meta file is damaged"),
    ("meta_000300.json", b"[]", "meta file is damaged"),
    ("meta_000300.json", b"{}", "meta file is damaged"),
    ("meta_000300.json", b'{"model_config": 5}', "meta file is damaged"),
    ("meta_000300.json", b'{"model_config": {"n_head": 0}}', "meta file is damaged"),
    ("meta_000300.json", b'{"model_config": {"n_embd": [1]}}', "meta file is damaged"),
    ("meta_000300.json", b"[" * 100_000, "meta file is damaged"),
    ("meta_000300.json", b" " * (2 << 20), "meta file is damaged"),
    ("meta_000300.json", b"\xff\x00", "meta file is damaged"),
    ("meta_000300.json", b'{"model_config": {"n_experts": 8}}', "does not know: n_experts"),
    ("meta_000300.json", None, "meta file is missing"),
    ("model_000300.pt", None, "model file is missing"),
    ("model_000300.pt", b"cut", "not the size"),
    ("manifest_000300.json", b"{}", "manifest is damaged"),
    ("manifest_000300.json", b'{"files": {"model_000300.pt": 3}}', "manifest is damaged"),
])
def test_damage_is_listed_with_its_problem(tmp_path: Path, save: Save, name: str, content: bytes | None,
                                           problem: str) -> None:
    folder = save()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    [model] = list_models(tmp_path)
    assert model.problem is not None and problem in model.problem
    assert not model.verified and default_model([model]) is None


def test_odd_numbers_in_json_are_no_crash(tmp_path: Path, save: Save) -> None:
    folder = save()
    meta = {"val_bpb": 10**400, "model_config": CONFIG}
    (folder / "meta_000300.json").write_text(json.dumps(meta))
    (folder / "manifest_000300.json").write_text('{"created": NaN, "files": {}}')
    [model] = list_models(tmp_path)
    assert model.val_bpb is None and model.created > 0


def test_a_half_saved_checkpoint_and_a_missing_tokenizer_say_so(tmp_path: Path, save: Save) -> None:
    save("base", 100), save("base", 200, manifest=False)
    assert {m.step: m.problem for m in list_models(tmp_path)} == {
        100: None, 200: "it was not saved to the end: its manifest is missing"}
    (tmp_path / "tokenizer" / "tokenizer.pkl").unlink()
    assert all("no tokenizer" in (m.problem or "") for m in list_models(tmp_path))


def test_links_and_hostile_names_are_no_models(tmp_path: Path, save: Save) -> None:
    real = save("sft", 300)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model_000001.pt").touch()
    stage = real.parent
    (stage / "linked").symlink_to(outside)
    for name in ("-rf", "a b", "x\n", "é", "\x1b[31m", "a" * 90, ".hidden"):
        (stage / name).mkdir()
        (stage / name / "model_000001.pt").touch()
    for name in ("model_1.pt", "model_000001.pt.tmp", ".model_000002.pt.9.tmp", "model_0000-1.pt", "model_٠٠٠٠٠٣.pt"):
        (real / name).touch()
    (real / "model_000777.pt").symlink_to(outside / "model_000001.pt")
    (real / "model_000778.pt").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    (tmp_path / "runs" / "bad name").mkdir()
    (tmp_path / "mid_checkpoints").write_text("a file where a folder is expected")
    assert [m.ref for m in list_models(tmp_path)] == ["sft/d4@300"]
    assert list_models(tmp_path / "nowhere") == []


def test_a_thousand_checkpoints_are_quick(tmp_path: Path, save: Save) -> None:
    for run in range(20):
        for step in range(50):
            save("base", step, run=f"run-{run:02d}", created=run * 100 + step)
    begin = time.perf_counter()
    models = list_models(tmp_path)
    seconds = time.perf_counter() - begin
    assert len(models) == 1000 and all(m.problem is None for m in models)
    assert seconds < 1.0


def test_it_needs_neither_torch_nor_pyarrow() -> None:
    code = "import sys, engine.catalog; print([m for m in ('torch', 'pyarrow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_world import PAST, add_checkpoint, add_tokenizer, tensor_file, write

from remote.backup import box_files
from remote.backup.box import Box
from remote.backup.checkpoint_files import Inventory, inventory
from remote.errors import NoSuchFile
from remote.host import Completed
from remote.local import LocalHost

UPSTREAM = Path(__file__).parents[3] / "shared" / "reference" / "upstream" / "runs"


def listed(base: Path) -> Inventory:
    return inventory(Box(LocalHost()), str(base))


def test_every_stage_and_run_is_found(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, "base_checkpoints/d4", 300)
    add_checkpoint(tmp_path, "mid_checkpoints/d4", 20)
    add_checkpoint(tmp_path / "runs" / "tiny-1" / "base", "chatrl_checkpoints/d4", 60, ranks=0)
    found = listed(tmp_path).checkpoints
    assert [(str(c.id), c.stage, c.world_size, c.problem) for c in found] == [
        ("base_checkpoints/d4 step 300", "base", 2, None), ("mid_checkpoints/d4 step 20", "mid", 2, None),
        ("runs/tiny-1/base/chatrl_checkpoints/d4 step 60", "rl", 0, None)]
    assert [name for name, _, _ in found[0].parts()] == [
        "meta_000300.json", "tokenizer/token_bytes.pt", "tokenizer/tokenizer.pkl", "model_000300.pt",
        "optim_000300_rank0.pt", "optim_000300_rank1.pt"]
    assert all(Path(path).stat().st_size == stat.bytes for c in found for _, path, stat in c.parts())


def broken(name: str) -> Callable[[Path], None]:
    def manifest(folder: Path, change: Callable[[dict], object]) -> None:
        path = folder / "manifest_000300.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return {
        "no model": lambda f: (f / "model_000300.pt").unlink(),
        "no meta": lambda f: (f / "meta_000300.json").unlink(),
        "meta is no JSON": lambda f: (f / "meta_000300.json").write_text('{"model_config": {'),
        "meta says nothing": lambda f: (f / "meta_000300.json").write_text("[]"),
        "a rank is missing": lambda f: (f / "optim_000300_rank1.pt").unlink(),
        "a file is cut": lambda f: os.truncate(f / "optim_000300_rank0.pt", 100),
        "the manifest is cut": lambda f: os.truncate(f / "manifest_000300.json", 100),
        "the manifest is of another step": lambda f: manifest(f, lambda m: m.update(step=1)),
        "the manifest has no hash": lambda f: manifest(f, lambda m: m["files"]["model_000300.pt"].pop("sha256")),
        "the manifest names another folder": lambda f: manifest(f, lambda m: m["files"].update({"../x.pt": {}})),
    }[name]


@pytest.mark.parametrize("what", ["no model", "no meta", "meta is no JSON", "meta says nothing", "a rank is missing",
                                  "a file is cut", "the manifest is cut", "the manifest is of another step",
                                  "the manifest has no hash", "the manifest names another folder"])
def test_what_is_not_whole_says_why(tmp_path: Path, what: str) -> None:
    folder = add_checkpoint(tmp_path)
    broken(what)(folder)
    (found,) = listed(tmp_path).checkpoints
    assert found.problem, what
    assert listed(tmp_path).newest() == [] and listed(tmp_path).unfinished() == [found]


def test_nanochats_own_checkpoints_need_no_manifest(tmp_path: Path) -> None:
    folder = add_checkpoint(tmp_path, step=100, ranks=8, manifest=False)
    add_checkpoint(tmp_path, step=200, ranks=7, manifest=False)
    write(folder / "model_000150.pt", tensor_file(1))
    write(folder / "meta_000150.json", b'{"model_config": {}}')
    write(folder / "optim_000150.pt", tensor_file(2))  # the unsharded file of the first weeks
    assert [(c.id.step, c.problem) for c in listed(tmp_path).checkpoints] == [
        (100, None), (150, None), (200, "optimizer state of 1 of 8 ranks is missing")]


def test_one_without_manifest_among_ours_was_not_saved_to_the_end(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, step=100)
    add_checkpoint(tmp_path, step=200, manifest=False)
    found = listed(tmp_path)
    assert [c.id.step for c in found.newest()] == [100]
    assert [(c.id.step, c.problem) for c in found.unfinished()] == [
        (200, "it was not saved to the end: its manifest is missing")]


def test_links_and_odd_names_are_no_checkpoints(tmp_path: Path) -> None:
    add_checkpoint(tmp_path / "elsewhere")
    (tmp_path / "base_checkpoints").mkdir()
    (tmp_path / "base_checkpoints" / "d4").symlink_to(tmp_path / "elsewhere" / "base_checkpoints" / "d4")
    write(tmp_path / "base_checkpoints" / "-rf" / "model_000001.pt", b"x")
    assert listed(tmp_path).checkpoints == ()


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    assert listed(tmp_path / "not made yet").checkpoints == ()
    with pytest.raises(NoSuchFile):
        listed(tmp_path / "no" / "such" / "disk")


@pytest.mark.parametrize("damage", ["cut", "a flipped bit", "no zip", "compressed"])
def test_a_damaged_tensor_file_is_noticed(tmp_path: Path, damage: str) -> None:
    data = tensor_file(5)
    middle = data.index(b"archive/data/0") + 500
    value = {"cut": data[:-30], "a flipped bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:],
             "no zip": b"x" * 3000, "compressed": data.replace(b"\x14" + bytes(5), b"\x14\0\0\0\x08\0")}[damage]
    write(tmp_path / "good.pt", data)
    write(tmp_path / "bad.pt", value)
    assert value != data
    assert box_files.examine(tmp_path / "good.pt")["problem"] is None
    assert box_files.examine(tmp_path / "bad.pt")["problem"]


class FarHost(LocalHost):
    """This machine as another one: only what the Protocol offers, our script run as a file of its own."""

    def run_script(self, script: Path, argv: object, *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        return super().run_script(script, argv, stdin=stdin, timeout=timeout)  # type: ignore[arg-type]


def test_another_machine_answers_the_same(tmp_path: Path) -> None:
    add_checkpoint(tmp_path)
    near, far = Box(LocalHost()), Box(FarHost())
    far.here = False
    assert inventory(far, str(tmp_path)).checkpoints == inventory(near, str(tmp_path)).checkpoints
    path = str(tmp_path / "base_checkpoints" / "d4" / "model_000300.pt")
    assert far.examine(path, lambda n: None) == near.examine(path, lambda n: None)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="needs runs of unmodified nanochat beside the repository")
@pytest.mark.parametrize("era", ["seed", "head"])
def test_a_real_nanochat_run_is_whole(era: str) -> None:
    (found,) = listed(UPSTREAM / era).checkpoints
    assert (found.problem, found.stage, found.tag, found.id.step, found.world_size) == (None, "base", "d2", 60, 1)
    assert found.val_bpb is not None and time.time() > found.changed > PAST


def test_the_tokenizer_of_a_run_is_its_own(tmp_path: Path) -> None:
    add_checkpoint(tmp_path)
    add_checkpoint(tmp_path / "runs" / "a" / "base")
    add_tokenizer(tmp_path / "runs" / "a" / "base", b"another one")
    sizes = {c.id.folder: c.tokenizer["tokenizer.pkl"].bytes for c in listed(tmp_path).checkpoints}
    assert sizes == {"base_checkpoints/d4": 6, "runs/a/base/base_checkpoints/d4": 11}

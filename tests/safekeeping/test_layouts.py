from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from checkpoint_world import add_checkpoint, tensor_file, write
from fake_hub import FakeHub

from remote.backup.hub import HubSafekeeper
from remote.backup.layouts import Gathered, Renamed, Spec, checkpoints, copies, manifest_of, parse_spec
from remote.backup.restore import restore
from remote.backup.sources import FolderSource, HubSource
from remote.errors import CopyRefused
from remote.local import LocalHost

MODEL, PICKLE = tensor_file(3), b"\x80\x04a tokenizer"
UPSTREAM = Path(__file__).parents[3] / "shared" / "reference" / "upstream" / "runs"


def meta(**more: object) -> bytes:
    return json.dumps({"model_config": {"n_layer": 20}, **more}).encode()


STEP = {"model_021400.pt": MODEL, "meta_021400.json": meta(loop_state={}, val_bpb=0.81)}
LAYOUTS = {
    "trelis": ({**{f"base/d20/{n}": d for n, d in STEP.items()}, "base/d20/optim_021400_rank0.pt": MODEL,
                "tokenizer/latest/tokenizer.pkl": PICKLE, "report/latest/report.md": b"r"}, ("base", "d20", 21400)),
    "nanochat": ({**{f"chatsft_checkpoints/d20/{n}": d for n, d in STEP.items()}, "tokenizer/tokenizer.pkl": PICKLE},
                 ("sft", "d20", 21400)),
    "flat sft": ({"model_000650.pt": MODEL, "meta_000650.json": meta(step=650, val_loss=1.0, mmlu_acc=0.3),
                  "tokenizer.pkl": PICKLE, "token_bytes.pt": MODEL, "README.md": b"x"}, ("sft", "d20", 650)),
    "flat rl": ({"model_000466.pt": MODEL, "meta_000466.json": meta(), "tokenizer.pkl": PICKLE}, ("rl", "d20", 466)),
    "by depth": ({**{f"d20/{n}": d for n, d in STEP.items()}, "d20/tokenizer/tokenizer.pkl": PICKLE},
                 ("base", "d20", 21400)),
    "unsharded": ({**STEP, "optim_021400.pt": MODEL, "tokenizer.pkl": PICKLE}, ("base", "d20", 21400)),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", ["folder", "hub"])
def test_every_layout_is_understood_and_brought_here(
        tmp_path: Path, fake_hub: FakeHub, hub_keeper: HubSafekeeper, name: str, place: str) -> None:
    files, expected = LAYOUTS[name]
    if place == "hub":
        fake_hub.add_repo("me/run7", files=files)
        source: FolderSource | HubSource = HubSource(hub_keeper.wire())
    else:
        for path, data in files.items():
            write(tmp_path / "theirs" / path, data)
        source = FolderSource(tmp_path / "theirs")
    (found,) = checkpoints(source)
    assert (found.stage, found.tag, found.step) == expected and found.has_tokenizer
    manifest = manifest_of(source, found, "d20-import")
    done = restore(Renamed(source, found.paths), manifest, tmp_path / "here", lambda t: None, threading.Event())
    assert (done.folder / f"model_{found.step:06d}.pt").read_bytes() == MODEL
    assert (tmp_path / "here" / "tokenizer" / "tokenizer.pkl").read_bytes() == PICKLE
    assert not list((tmp_path / "here").rglob(".cache"))


def test_bundles_join_one_repository_s_tokenizer_to_anothers_weights(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.add_repo("a/tok", files={"tokenizer.pkl": PICKLE, "token_bytes.pt": MODEL, "model_000001.pt": MODEL,
                                      "meta_000001.json": meta()})
    fake_hub.add_repo("b/weights", files={f"w/{n}": d for n, d in STEP.items()})
    from remote.backup.hub_wire import HubWire

    specs = [parse_spec("a/tok::::tokenizer.pkl,token_bytes.pt"), parse_spec("b/weights::w::*021400*")]
    assert specs[1] == Spec("b/weights", None, "w", ("*021400*",))
    parts = [(HubSource(HubWire(s.repo, fake_hub.token), s.folder, s.revision), s.patterns) for s in specs]
    (found,) = checkpoints(Gathered(parts), tag="diego-d20-base")
    assert (found.folder, found.step) == ("base_checkpoints/diego-d20-base", 21400)
    assert found.paths["tokenizer/tokenizer.pkl"] == "tokenizer.pkl"


def test_our_own_copies_are_found_by_their_manifests(kept_base: Path, hub_keeper: HubSafekeeper,
                                                     never: threading.Event) -> None:
    hub_keeper.back_up(LocalHost(), str(kept_base), lambda t: None, never)
    assert copies(HubSource(hub_keeper.wire())) == [
        "runs/nanochat/base/d4/000100", "runs/nanochat/base/d4/000300", "runs/nanochat/sft/d4/000050"]


@pytest.mark.parametrize("text", ["", "x", "a/b/c::x", "::x"])
def test_what_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(CopyRefused):
        parse_spec(text)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="needs runs of unmodified nanochat beside the repository")
@pytest.mark.parametrize("era", ["seed", "head"])
def test_a_real_nanochat_base_directory(era: str, tmp_path: Path) -> None:
    source = FolderSource(UPSTREAM / era)
    (found,) = checkpoints(source)
    assert (found.folder, found.step, len(found.paths)) == ("base_checkpoints/d2", 60, 5)
    manifest = manifest_of(source, found, era)
    done = restore(Renamed(source, found.paths), manifest, tmp_path / "here", lambda t: None, threading.Event())
    from engine.catalog import list_models

    (model,) = list_models(tmp_path / "here")
    assert model.verified or "architecture" in str(model.problem)
    assert {v.word for v in done.verdicts} == {"restored"}


def test_the_steps_of_one_folder_are_several_checkpoints(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, step=1)
    add_checkpoint(tmp_path, step=2)
    assert [found.step for found in checkpoints(FolderSource(tmp_path))] == [1, 2]

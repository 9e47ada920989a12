from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_world import add_checkpoint, add_tokenizer, contents
from fake_hub import FakeHub, Fault

from remote.backup.fetching import Patience
from remote.backup.folder import FolderSafekeeper
from remote.backup.hub import HubSafekeeper
from remote.backup.keeper import Interrupted
from remote.backup.restore import Restored, read_manifest, restore
from remote.backup.sources import FolderSource, HubSource, Source
from remote.errors import CopyRefused, DamagedCopy, HubUnreachable, RemoteError
from remote.local import LocalHost
from remote.safekeeping import Transfer

QUICK = Patience(attempts=3, pause=0.02)


def nothing(transfer: Transfer) -> None:
    pass


def bring(source: Source, base: Path, **more: object) -> Restored:
    return restore(source, read_manifest(source), base, nothing, threading.Event(), patience=QUICK,
                   **more)  # type: ignore[arg-type]


@pytest.fixture
def big_base(tmp_path: Path) -> Path:
    """One checkpoint with files of several pieces."""
    base = tmp_path / "origin" / "nanochat"
    add_checkpoint(base, ranks=1, size=20 << 20)
    return base


@pytest.fixture(params=["folder", "hub"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, kept_base: Path) -> Callable[[], Source]:
    """A way to open the copy of base step 300, at either kind of place."""
    if request.param == "folder":
        keeper = FolderSafekeeper(tmp_path / "backups", settle=0)
        keeper.back_up(LocalHost(), str(kept_base), nothing, threading.Event())
        return lambda: FolderSource(tmp_path / "backups" / "runs" / "nanochat" / "base" / "d4" / "000300")
    hub_keeper: HubSafekeeper = request.getfixturevalue("hub_keeper")
    hub_keeper.back_up(LocalHost(), str(kept_base), nothing, threading.Event())
    return lambda: HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300")


def test_what_comes_back_is_what_went(stored: Callable[[], Source], kept_base: Path, tmp_path: Path) -> None:
    done = bring(stored(), tmp_path / "back")
    origin = {name: data for name, data in contents(kept_base).items()
              if ("000300" in name and name.startswith("base_")) or name.startswith("tokenizer/")}
    assert contents(tmp_path / "back") == {**origin, ".restoring/.lock": b""}
    assert {verdict.word for verdict in done.verdicts} == {"restored"} and done.moved_aside is None
    again = bring(stored(), tmp_path / "back")
    assert {verdict.word for verdict in again.verdicts} == {"was there"}


def test_without_optimizer_state_the_manifest_says_so(stored: Callable[[], Source], tmp_path: Path) -> None:
    bring(stored(), tmp_path / "back", optimizer=False)
    assert not list((tmp_path / "back").rglob("optim_*"))
    assert "optim_" not in (tmp_path / "back/base_checkpoints/d4/manifest_000300.json").read_text()


def test_what_is_in_the_way_is_moved_aside_and_other_steps_stay(stored: Callable[[], Source], tmp_path: Path) -> None:
    back = tmp_path / "back"
    add_checkpoint(back, step=200)
    assert bring(stored(), back).moved_aside is None
    assert len(list((back / "base_checkpoints" / "d4").glob("manifest_*"))) == 2
    (back / "base_checkpoints" / "d4" / "model_000300.pt").write_bytes(b"something of mine")
    aside = bring(stored(), back).moved_aside
    assert aside is not None and (aside / "model_000300.pt").read_bytes() == b"something of mine"
    assert (aside / "manifest_000200.json").exists()
    assert bring(stored(), back).moved_aside is None


def test_another_tokenizer_is_refused_before_any_weights(stored: Callable[[], Source], tmp_path: Path) -> None:
    back = tmp_path / "back"
    add_tokenizer(back, b"another vocabulary")
    before = contents(back)
    with pytest.raises(CopyRefused, match="another tokenizer"):
        bring(stored(), back)
    assert {n: d for n, d in contents(back).items() if not n.startswith(".restoring")} == before
    assert not list(back.rglob("model_*"))
    bring(stored(), back, same_tokenizer=lambda mine, theirs: True)
    assert (back / "tokenizer" / "tokenizer.pkl").read_bytes() == b"another vocabulary"


def test_a_full_disk_is_told_first(stored: Callable[[], Source], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(CopyRefused, match="GB free"):
        bring(stored(), tmp_path / "back")
    assert not list((tmp_path / "back").rglob("*.pt*"))


@pytest.mark.parametrize("name", ["model_000300.pt", "meta_000300.json", "optim_000300_rank1.pt", "manifest.json"])
def test_a_damaged_copy_is_never_put_in_place(tmp_path: Path, kept_base: Path, name: str) -> None:
    FolderSafekeeper(tmp_path / "b", settle=0).back_up(LocalHost(), str(kept_base), nothing, threading.Event())
    copy = tmp_path / "b" / "runs" / "nanochat" / "base" / "d4" / "000300"
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(DamagedCopy):
        bring(FolderSource(copy), tmp_path / "back")
    assert not (tmp_path / "back" / "base_checkpoints").exists()


@pytest.mark.parametrize("fault", [Fault("get", "cut", 2), Fault("get", "cut_late", 3), Fault("get", "status", 1, 403),
                                   Fault("get", "status", 2, 503), Fault("resolve_head", "status", 2),
                                   Fault("resolve", "cut", 1), Fault("tree", "status", 1)],
                         ids=lambda f: f"{f.route}-{f.how}-{f.status}")
def test_a_passing_fault_costs_a_retry(hub_keeper: HubSafekeeper, fake_hub: FakeHub, big_base: Path, tmp_path: Path,
                                       fault: Fault, never: threading.Event) -> None:
    hub_keeper.back_up(LocalHost(), str(big_base), nothing, never)
    fake_hub.faults = [Fault(**vars(fault))]
    bring(HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300"), tmp_path / "back")
    assert contents(tmp_path / "back/base_checkpoints") == contents(big_base / "base_checkpoints")


@pytest.mark.parametrize("lie", ["flip", "truncate", "missing", "no ranges"])
def test_no_lie_is_put_in_place(hub_keeper: HubSafekeeper, fake_hub: FakeHub, big_base: Path, tmp_path: Path,
                                lie: str, never: threading.Event) -> None:
    hub_keeper.back_up(LocalHost(), str(big_base), nothing, never)
    fake_hub.lie = lie
    source = HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300")
    if lie == "no ranges":  # no lie, only slow
        bring(source, tmp_path / "back")
        return
    with pytest.raises((DamagedCopy, HubUnreachable, RemoteError)):
        bring(source, tmp_path / "back")
    assert not (tmp_path / "back" / "base_checkpoints").exists()


def test_a_branch_that_moves_on_changes_nothing(hub_keeper: HubSafekeeper, fake_hub: FakeHub, kept_base: Path,
                                                tmp_path: Path, never: threading.Event) -> None:
    hub_keeper.back_up(LocalHost(), str(kept_base), nothing, never)
    source = HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300")
    fake_hub.add_repo("me/run7", files={"README.md": b"everything else is gone"})
    fake_hub.repos["me/run7"].commits.insert(0, type(fake_hub.head("me/run7"))(source.commit, "old", {}))
    with pytest.raises(RemoteError):
        bring(source, tmp_path / "back")


def test_stopped_and_gone_on_with_nothing_twice(hub_keeper: HubSafekeeper, fake_hub: FakeHub, big_base: Path,
                                                tmp_path: Path, never: threading.Event) -> None:
    hub_keeper.back_up(LocalHost(), str(big_base), nothing, never)
    fake_hub.log.clear()
    stop = threading.Event()

    def after_the_model(transfer: Transfer) -> None:
        if transfer.file.startswith("optim"):
            stop.set()

    source = HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300")
    with pytest.raises(Interrupted):
        restore(source, read_manifest(source), tmp_path / "back", after_the_model, stop, patience=QUICK)
    fetched = {row[2].partition("?")[0] for row in fake_hub.routes("get")}
    fake_hub.log.clear()
    bring(source, tmp_path / "back")
    again = {row[2].partition("?")[0] for row in fake_hub.routes("get")}
    assert len(fetched) >= 3 and len(fetched & again) <= 1  # the one that it was stopped in
    assert contents(tmp_path / "back/base_checkpoints") == contents(big_base / "base_checkpoints")


KILLED = """
import sys, threading
from pathlib import Path
from remote.backup.hub_wire import HubWire
from remote.backup.restore import read_manifest, restore
from remote.backup.sources import HubSource
import os
source = HubSource(HubWire("me/run7", os.environ["HF_TOKEN"]), "runs/nanochat/base/d4/000300")
print("up", flush=True)
restore(source, read_manifest(source), Path(sys.argv[1]), lambda t: None, threading.Event())
"""


def test_killed_at_any_point_nothing_half_is_called_complete(
        hub_keeper: HubSafekeeper, kept_base: Path, tmp_path: Path, never: threading.Event) -> None:
    """As many points as LLMCONSOLE_KILL_POINTS says; each is some milliseconds into the work."""
    from engine.catalog import list_models

    points, chance = int(os.environ.get("LLMCONSOLE_KILL_POINTS", "4")), random.Random(4)
    hub_keeper.back_up(LocalHost(), str(kept_base), nothing, never)
    for point in range(points):
        back = tmp_path / f"back-{point}"
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(back)], cwd=Path(__file__).parents[2],
                                 stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.08))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        origin = contents(kept_base / "base_checkpoints" / "d4")
        for model in list_models(back):
            if model.problem is None or model.verified:
                here = contents(model.path)
                assert all(here.get(name) == data for name, data in origin.items() if "000300" in name
                           and not name.startswith("manifest"))
        bring(HubSource(hub_keeper.wire(), "runs/nanochat/base/d4/000300"), back)
        assert not list(back.rglob("*.part*")) and not list(back.rglob(".cache"))


def test_every_mutation_of_a_manifest_is_noticed_without_a_receipt(tmp_path: Path, never: threading.Event) -> None:
    """As many as LLMCONSOLE_MUTATIONS says; a person who has only the copy has only its own word."""
    base, count = tmp_path / "small" / "nanochat", int(os.environ.get("LLMCONSOLE_MUTATIONS", "300"))
    add_checkpoint(base, ranks=1, size=200)
    FolderSafekeeper(tmp_path / "b", settle=0).back_up(LocalHost(), str(base), nothing, never)
    copy, chance = tmp_path / "b/runs/nanochat/base/d4/000300", random.Random(11)
    source = FolderSource(copy)
    for number in range(count):
        path = copy / ("manifest.json" if number % 4 else "SHA256SUMS")
        good = path.read_bytes()
        at = chance.randrange(len(good))
        swap = bytes([good[at] ^ 1 << chance.randrange(8)])
        path.write_bytes((good[:at] + swap + good[at + 1:], good[:at], good[:at] + b"9" + good[at:])[number % 3])
        with pytest.raises(DamagedCopy):
            read_manifest(source)
        path.write_bytes(good)
    read_manifest(source)

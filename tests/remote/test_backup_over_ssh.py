"""Keeping checkpoints safe from a machine behind a real SSH server: to a folder here, and to the Hub from there."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from remote.backup.far_folder import HostSafekeeper
from remote.backup.folder import FolderSafekeeper
from remote.backup.hub import HubSafekeeper
from remote.backup.restore import read_manifest, restore
from remote.backup.sources import HostSource
from remote.errors import RemoteError
from remote.local import LocalHost
from remote.safekeeping import Transfer


def beside(name: str) -> ModuleType:
    """A module of the safekeeping tests, which lie in another folder."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"safekeeping/{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def nothing(transfer: Transfer) -> None:
    pass


@pytest.fixture
def far_base(box: Any, tmp_path: Path) -> Path:
    base = box.home / tmp_path.name / "nanochat"
    beside("checkpoint_world").add_checkpoint(base, ranks=2, size=6 << 20)
    beside("checkpoint_world").add_checkpoint(base, "chatsft_checkpoints/d4", 50, ranks=0)
    return base


def test_a_far_machine_s_checkpoints_come_here(box: Any, far_base: Path, tmp_path: Path) -> None:
    host = box.host()
    keeper = FolderSafekeeper(tmp_path / "backups", settle=0, label="run7")
    assert len(keeper.unproven(host, str(far_base))) == 2
    told: list[Transfer] = []
    done = keeper.back_up(host, str(far_base), told.append, threading.Event())
    assert not done.failed and keeper.unproven(host, str(far_base)) == []
    copy = tmp_path / "backups/runs/run7/base/d4/000300/model_000300.pt"
    assert copy.read_bytes() == (far_base / "base_checkpoints/d4/model_000300.pt").read_bytes()
    host.close()
    with pytest.raises(RemoteError):  # no answer is never "safe"
        keeper.unproven(box.host(port=1), str(far_base))


def test_a_far_machine_sends_to_the_hub_by_signed_urls(box: Any, far_base: Path, tmp_path: Path) -> None:
    hub = beside("fake_hub").FakeHub(tmp_path / "hub")
    hub.serve()
    host = box.host()
    keeper = HubSafekeeper("me/run7", tmp_path / "receipts", endpoint=hub.endpoint, token=hub.token, settle=0)
    done = keeper.back_up(host, str(far_base), nothing, threading.Event())
    assert not done.failed and keeper.unproven(host, str(far_base)) == []
    assert hub.leaked == [] and len(hub.routes("put")) >= 4
    assert not list(far_base.glob(".transfer*")) and not list(far_base.glob("transfer*"))
    hub.lie = "flip"
    (kept, *_) = keeper.receipts.all()
    with pytest.raises(RemoteError, match="not what was sent"):
        keeper.prove(kept, nothing, threading.Event())
    assert keeper.unproven(host, str(far_base))
    host.close()
    hub.close()


@pytest.mark.parametrize("source", ["here", "far"])
def test_another_machine_s_folder_is_a_place_too(box: Any, far_base: Path, tmp_path: Path, source: str) -> None:
    origin: Any = LocalHost() if source == "here" else box.host()
    keeper = HostSafekeeper(box.host(), str(tmp_path / "nas"), tmp_path / "receipts", settle=0)
    assert len(keeper.unproven(origin, str(far_base))) == 2
    done = keeper.back_up(origin, str(far_base), nothing, threading.Event())
    assert not done.failed and keeper.unproven(origin, str(far_base)) == []
    copy = tmp_path / "nas/runs/nanochat/base/d4/000300"
    assert (copy / "model_000300.pt").read_bytes() == (far_base / "base_checkpoints/d4/model_000300.pt").read_bytes()
    assert keeper.back_up(origin, str(far_base), nothing, threading.Event()).receipts
    back = HostSource(box.host(), str(copy))
    restore(back, read_manifest(back), tmp_path / "back", nothing, threading.Event())
    brought = tmp_path / "back/base_checkpoints/d4/model_000300.pt"
    assert brought.read_bytes() == (copy / "model_000300.pt").read_bytes()
    data = bytearray((copy / "model_000300.pt").read_bytes())
    data[900] ^= 1
    (copy / "model_000300.pt").write_bytes(bytes(data))
    with pytest.raises(RemoteError, match="differs"):
        keeper.prove(next(k for k in keeper.receipts.all() if "000300" in k.place), nothing, threading.Event())
    assert len(keeper.unproven(origin, str(far_base))) == 1
    keeper.back_up(origin, str(far_base), nothing, threading.Event())
    assert keeper.unproven(origin, str(far_base)) == []
    assert (copy / "model_000300.pt").read_bytes() == bytes(data)

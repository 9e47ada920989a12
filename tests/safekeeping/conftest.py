"""Checkpoints to keep safe, and places to keep them; the modules beside this file are at hand by name."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_world import add_checkpoint
from fake_hub import FakeHub

from remote.backup.folder import FolderSafekeeper
from remote.backup.hub import HubSafekeeper


@pytest.fixture
def kept_base(tmp_path: Path) -> Path:
    """Two stages, three checkpoints."""
    base = tmp_path / "kept" / "nanochat"
    add_checkpoint(base, step=100)
    add_checkpoint(base, step=300)
    add_checkpoint(base, "chatsft_checkpoints/d4", 50, ranks=0)
    return base


@pytest.fixture
def folder_keeper(tmp_path: Path) -> FolderSafekeeper:
    return FolderSafekeeper(tmp_path / "backups", settle=0.2)


@pytest.fixture
def never() -> threading.Event:
    """Nobody asks to stop."""
    return threading.Event()


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on loopback that the real client finds too."""
    hub = FakeHub(tmp_path / "hub")
    hub.serve()
    for name, value in {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1",
                        "HF_HOME": str(tmp_path / "hf-home"), "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        monkeypatch.setenv(name, value)
    yield hub
    assert hub.leaked == []  # whatever a test did, the storage was never told the token
    hub.close()


@pytest.fixture
def hub_keeper(fake_hub: FakeHub, tmp_path: Path) -> HubSafekeeper:
    return HubSafekeeper("me/run7", tmp_path / "receipts", endpoint=fake_hub.endpoint, token=fake_hub.token, settle=0.2,
                         timeout=1.5, attempts=3, pause=0.02)

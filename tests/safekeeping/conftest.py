"""Checkpoints to keep safe, and places to keep them; the modules beside this file are at hand by name."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_world import add_checkpoint

from remote.backup_folder import FolderSafekeeper


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

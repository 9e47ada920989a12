"""What it means that a checkpoint is safe: the words that backups and whoever may end a machine agree on.

A checkpoint is safe when a receipt says that every one of its bytes was read back from another place and was the same.
How that is done is the business of each Safekeeper; whoever ends a machine only asks `unproven` and takes every doubt,
error and time-out as "not safe".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remote.host import Host

LISTED, HEADED, READ_BACK = 1, 2, 3
"""How far a copy was proven: it is listed, its sizes and hashes were asked for, every byte was read back."""


@dataclass(frozen=True)
class CheckpointId:
    """One checkpoint of a base directory. `folder` is relative to it, such as "base_checkpoints/d20"."""

    folder: str
    step: int

    def __str__(self) -> str:
        return f"{self.folder} step {self.step:,}"


@dataclass(frozen=True)
class StoredFile:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """A copy that exists: where, of what, and how far it was proven. `location` is exact, such as repo@commit/path."""

    destination: str
    location: str
    checkpoint: CheckpointId
    files: Mapping[str, StoredFile]
    level: int
    proven_at: float  # wall time in seconds on the machine that read it back


@dataclass(frozen=True)
class Transfer:
    """How far one file is; `note` tells a wait or a retry in words, such as "503 from the Hub, try 2 in 8 s"."""

    checkpoint: CheckpointId
    file: str
    phase: str  # hash | send | prove | receive
    done: int  # bytes
    total: int
    rate: float = 0.0  # bytes/s
    note: str = ""


@dataclass(frozen=True)
class Loss:
    """A checkpoint that would be gone with the machine, and why nobody can say that it is safe."""

    checkpoint: CheckpointId
    bytes: int
    reason: str


@dataclass(frozen=True)
class BackedUp:
    """What a round of backing up came to; `failed` are checkpoints that are not proven, each with its reason."""

    receipts: tuple[Receipt, ...] = ()
    failed: tuple[Loss, ...] = field(default=())


class Safekeeper(Protocol):
    """Copies checkpoints from a machine to one other place and proves it. All of it may be repeated at any time."""

    name: str
    """The destination for people, such as "me/run7 (private)" or "~/llmconsole/backups"."""

    def back_up(self, host: Host, base: str, progress: Callable[[Transfer], None],
                stop: threading.Event) -> BackedUp:
        """Copy and prove every complete checkpoint below the base directory `base` of `host` that is not proven yet.

        What was sent before is not sent twice. Raises RemoteError when the machine or the destination cannot be
        reached; returns early, with what it has, when `stop` is set.
        """

    def unproven(self, host: Host, base: str) -> list[Loss]:
        """What ending the machine would lose, as listed now: for each stage the newest complete checkpoint must have a
        READ_BACK receipt that still resolves. [] means safe. Raises RemoteError when that cannot be known."""

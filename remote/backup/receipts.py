"""What was proven, kept where a crash or a power cut cannot lose it: receipts of copies, and hashes of files.

One small file per receipt, synced before anyone relies on it, with a checksum of its own: a damaged one counts as none.
A copy that turned out wrong has its receipt withdrawn, not deleted. Nothing here asks a machine or a destination.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.backup.checkpoint_files import Stat, stored_file
from remote.backup.manifest import content_id
from remote.safekeeping import READ_BACK, CheckpointId, Receipt

_WORST = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Kept:
    """A receipt with what it takes to find the copy again; `revision` is the Hub's commit, "" for a folder."""

    receipt: Receipt
    place: str
    manifest_sha256: str
    revision: str = ""
    withdrawn: str = ""

    @property
    def content(self) -> str:
        return content_id(self.receipt.files)

    @property
    def stands(self) -> bool:
        """Proven to the last byte, and not found wrong since."""
        return self.receipt.level >= READ_BACK and not self.withdrawn


class ReceiptBook:
    """The receipts in one folder of this machine. Building it creates nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, kept: Kept) -> None:
        """On disk, synced, when this returns; the receipt of an earlier proof of the same copy is replaced."""
        body = _body(kept)
        text = json.dumps({"v": 1, "body": body, "sha256": _checksum(body)}, indent=1)
        write_synced(self._path(kept), text.encode())

    def withdraw(self, kept: Kept, reason: str) -> None:
        """The copy is not what the receipt says any more."""
        self.keep(Kept(kept.receipt, kept.place, kept.manifest_sha256, kept.revision, reason or "withdrawn"))

    def all(self) -> list[Kept]:
        """Every readable receipt, the newest first, withdrawn ones too."""
        found = [kept for path in self._files() if (kept := _read(path)) is not None]
        return sorted(found, key=lambda kept: -kept.receipt.proven_at)

    def damaged(self) -> list[Path]:
        """Files that should be receipts and cannot be trusted."""
        return [path for path in self._files() if _read(path) is None]

    def standing(self, content: str, destination: str | None = None) -> list[Kept]:
        """Receipts that prove exactly this content, at one destination or anywhere."""
        return [kept for kept in self.all() if kept.stands and kept.content == content
                and destination in (None, kept.receipt.destination)]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("receipt-*.json")) if self.folder.is_dir() else []

    def _path(self, kept: Kept) -> Path:
        where = f"{kept.receipt.destination}\0{kept.place}\0{kept.content}"
        return self.folder / f"receipt-{hashlib.sha256(where.encode()).hexdigest()[:24]}.json"


def _body(kept: Kept) -> dict[str, Any]:
    receipt = kept.receipt
    return {"destination": receipt.destination, "location": receipt.location, "folder": receipt.checkpoint.folder,
            "step": receipt.checkpoint.step, "level": receipt.level, "proven_at": receipt.proven_at,
            "files": {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in sorted(receipt.files.items())},
            "place": kept.place, "manifest_sha256": kept.manifest_sha256, "revision": kept.revision,
            "withdrawn": kept.withdrawn}


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Kept | None:
    try:
        record = json.loads(path.read_bytes())
        body = record["body"]
        if record["v"] != 1 or record["sha256"] != _checksum(body):
            return None
        files = {name: stored_file(entry) for name, entry in body["files"].items()}
        receipt = Receipt(body["destination"], body["location"], CheckpointId(body["folder"], body["step"]), files,
                          body["level"], body["proven_at"])
        return Kept(receipt, body["place"], body["manifest_sha256"], body["revision"], body["withdrawn"])
    except _WORST:
        return None


@dataclass(frozen=True)
class Examined:
    """What one reading of a file told: its sha256, and why it is no whole tensor file, if it is not."""

    sha256: str
    problem: str | None


class HashBook:
    """Files that were read once and have not been written to since, so that no one reads them twice."""

    def __init__(self, path: Path) -> None:
        self._path, self._guard = path, threading.Lock()

    def known(self, host: str, path: str, stat: Stat) -> Examined | None:
        entry = self._load().get(f"{host}|{path}")
        try:
            if entry is not None and entry["stat"] == [stat.bytes, stat.mtime, stat.ctime, stat.inode]:
                return Examined(stored_file({"bytes": stat.bytes, "sha256": entry["sha256"]}).sha256, entry["problem"])
        except _WORST:
            return None
        return None

    def remember(self, host: str, path: str, stat: Stat, examined: Examined) -> None:
        with self._guard:
            table = self._load()
            table[f"{host}|{path}"] = {"stat": [stat.bytes, stat.mtime, stat.ctime, stat.inode],
                                       "sha256": examined.sha256, "problem": examined.problem}
            write_synced(self._path, json.dumps(table).encode())

    def _load(self) -> dict[str, Any]:
        try:
            table = json.loads(self._path.read_bytes())
        except _WORST:  # worth nothing but time: the files are read again
            return {}
        return table if isinstance(table, dict) else {}


def write_synced(path: Path, data: bytes, mode: int = 0o666) -> None:
    """The file has its old content or the new one after any crash, and the new one once this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

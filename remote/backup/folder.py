"""Copies of checkpoints in a folder of this machine (a disk, a mounted NAS), from this machine or any other.

    <folder>/runs/<run>/<stage>/<tag>/<step>/   a copy: it appears whole, and is never written to again
    <folder>/incoming/<content>/                what has arrived of one that is not whole yet
    <folder>/receipts/                          what was proven, unless the caller keeps that elsewhere

A copy is proven by reading every byte of it back from the disk. Nothing in the folder is overwritten or deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote.backup import manifest as backup_manifest
from remote.backup.box import Box
from remote.backup.checkpoint_files import CheckpointFiles, Stat
from remote.backup.keeper import SETTLE_S, Interrupted, Keeper, proven
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.metering import Meter, Progress
from remote.backup.receipts import Examined, Kept, ReceiptBook, sync_folder, write_synced
from remote.errors import CopyRefused, DamagedCopy, NoSuchFile
from remote.safekeeping import LISTED, Receipt, StoredFile

_PIECE = 8 << 20        # bytes asked of the machine at once
_SPARE = 64 << 20       # bytes of disk that stay free


class FolderSafekeeper(Keeper):
    """The Safekeeper whose place is `folder` on this machine."""

    def __init__(self, folder: Path, receipts: Path | None = None, label: str | None = None,
                 settle: float = SETTLE_S) -> None:
        self.folder = folder.expanduser().absolute()
        super().__init__(ReceiptBook(receipts or self.folder / "receipts"), label, settle)
        self.name, self.destination = str(folder), f"folder:{self.folder}"

    def _open(self) -> None:
        try:
            (self.folder / "incoming").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CopyRefused(f"{self.folder} cannot hold copies: {error.strerror or error}") from error

    def _copy(self, box: Box, found: CheckpointFiles, manifest: Manifest, progress: Progress) -> Kept:
        try:
            with self._alone():
                place = self._existing(manifest) or self._bring(box, found, manifest, progress)
        except OSError as error:
            raise CopyRefused(f"{error.filename or self.folder}: {error.strerror or error}") from error
        text = (self.folder / place / MANIFEST).read_bytes()
        receipt = Receipt(self.destination, str(self.folder / place), found.id, dict(manifest.files), LISTED,
                          time.time())
        return Kept(receipt, place, hashlib.sha256(text).hexdigest())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self.folder / "incoming" / ".lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CopyRefused(f"another backup into {self.folder} is under way; wait for it") from None
            yield

    def _existing(self, manifest: Manifest) -> str | None:
        """A place that holds exactly this, as far as manifest and sizes say, and was never found wrong."""
        wrong = {kept.place for kept in self.receipts.all() if kept.withdrawn}
        for place in self._places(manifest):
            if not (self.folder / place).exists():
                return None
            if place not in wrong and self._listed(place, manifest.content):
                return place
        return None

    def _listed(self, place: str, content: str, sha256: str | None = None) -> bool:
        try:
            held = backup_manifest.load((self.folder / place / MANIFEST).read_bytes(), sha256)
            return held.content == content and all(
                (self.folder / place / name).stat().st_size == file.bytes for name, file in held.files.items())
        except (DamagedCopy, FileNotFoundError, NotADirectoryError):
            return False

    @staticmethod
    def _places(manifest: Manifest) -> Iterator[str]:
        yield backup_manifest.place_of(manifest)
        yield backup_manifest.second_place(manifest)
        for number in range(2, 1000):
            yield f"{backup_manifest.second_place(manifest)}-{number}"

    def _bring(self, box: Box, found: CheckpointFiles, manifest: Manifest, progress: Progress) -> str:
        incoming = self.folder / "incoming" / manifest.content[:24]
        incoming.mkdir(parents=True, exist_ok=True)
        self._require_space(incoming, manifest)
        for name, path, stat in found.parts():
            target = incoming / name
            if not target.exists():
                meter = Meter(progress, found.id, name, "send", stat.bytes)
                _bring_file(box, path, target, manifest.files[name], meter)
            self._remember(box, path, stat, manifest.files[name])
        text = backup_manifest.dump(manifest)
        write_synced(incoming / SUMS, backup_manifest.sums(manifest, text))
        write_synced(incoming / MANIFEST, text)
        for place in self._places(manifest):
            if not (self.folder / place).exists():
                (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
                incoming.rename(self.folder / place)
                sync_folder((self.folder / place).parent)
                return place
        raise CopyRefused(f"{self.folder} holds a thousand different copies of {found.id}")

    def _require_space(self, incoming: Path, manifest: Manifest) -> None:
        have = sum(path.stat().st_size for path in incoming.rglob("*") if path.is_file())
        need, free = manifest.bytes - have + _SPARE, shutil.disk_usage(self.folder).free
        if free < need:
            raise CopyRefused(f"{self.folder} has {free / 1e9:.2f} GB free and {need / 1e9:.2f} GB are needed; free "
                              "some, or name another folder")

    def _remember(self, box: Box, path: str, stat: Stat, file: StoredFile) -> None:
        """What arrived had this hash, so the original has it too, and needs no reading until it changes."""
        if self.hashes.known(box.host.name, path, stat) is None:
            self.hashes.remember(box.host.name, path, stat, Examined(file.sha256, None))

    def prove(self, kept: Kept, progress: Progress, stop: threading.Event, box: Box | None = None) -> Kept:
        place = self.folder / kept.place
        try:
            manifest = backup_manifest.load((place / MANIFEST).read_bytes(), kept.manifest_sha256)
            if (place / SUMS).read_bytes() != backup_manifest.sums(manifest, backup_manifest.dump(manifest)):
                raise DamagedCopy(f"{SUMS} is damaged")
            if dict(manifest.files) != dict(kept.receipt.files):
                raise DamagedCopy("the manifest lists other files than the receipt")
            for name, file in manifest.files.items():
                meter = Meter(progress, kept.receipt.checkpoint, name, "prove", file.bytes)
                _read_back(place / name, file, meter, stop)
        except DamagedCopy as error:
            self.receipts.withdraw(kept, str(error))
            raise DamagedCopy(f"the copy at {place} is not what was sent: {error}") from None
        except OSError as error:
            self.receipts.withdraw(kept, f"{error.filename}: {error.strerror}")
            raise DamagedCopy(f"the copy at {place} cannot be read: {error.strerror or error}") from error
        return proven(kept)

    def resolves(self, kept: Kept) -> bool:
        try:
            return self._listed(kept.place, kept.content, kept.manifest_sha256)
        except OSError as error:
            raise CopyRefused(f"{self.folder}: {error.strerror or error}") from error


def _bring_file(box: Box, path: str, target: Path, file: StoredFile, meter: Meter) -> None:
    """Bring one file; what a crash left of it is kept if the whole then has the right hash, else it begins again."""
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for fresh in (False, True):
        if fresh or not part.exists() or part.stat().st_size > file.bytes:
            part.write_bytes(b"")
        begun = part.stat().st_size
        if _receive(box, path, part, file.bytes, meter) == file.sha256:
            os.replace(part, target)
            sync_folder(target.parent)
            return
        if begun == 0:
            break
    raise DamagedCopy(f"{target.name} is not what its manifest says: it is damaged on {box.host.name}")


def _receive(box: Box, path: str, part: Path, size: int, meter: Meter) -> str:
    """Append what is missing; the sha256 of all of it, synced to disk."""
    digest = hashlib.sha256()
    with open(part, "r+b") as f:
        while chunk := f.read(_PIECE):
            digest.update(chunk)
        done = f.tell()
        meter.start(done)
        while done < size:
            if box.stop.is_set():
                raise Interrupted
            try:
                chunk = box.host.read(path, done, min(_PIECE, size - done))
            except NoSuchFile as error:
                raise DamagedCopy(f"{path} vanished while it was copied") from error
            if not chunk:
                raise DamagedCopy(f"{path} got shorter while it was copied")
            f.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            meter(done)
        f.flush()
        os.fsync(f.fileno())
    return digest.hexdigest()


def _read_back(path: Path, file: StoredFile, meter: Meter, stop: threading.Event) -> None:
    """Raises DamagedCopy unless the bytes on the disk are exactly those."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as f:
        if hasattr(os, "posix_fadvise"):  # from the disk, not from what memory still has of it
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        meter.start()
        while chunk := f.read(_PIECE):
            if stop.is_set():
                raise Interrupted
            digest.update(chunk)
            done += len(chunk)
            meter(done)
    if done != file.bytes or digest.hexdigest() != file.sha256:
        raise DamagedCopy(f"{path.name} differs from the original")

"""Copies of checkpoints in a folder of another machine that SSH reaches: a NAS, a second box, a friend's disk.

The layout is that of `remote.backup.folder`. What comes from a third machine passes through this one's disk, a file at
a time. A copy is proven by hashing every byte where it lies; its place is never written to again.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from remote.backup import manifest as backup_manifest
from remote.backup.box import Box
from remote.backup.checkpoint_files import CheckpointFiles
from remote.backup.keeper import SETTLE_S, Interrupted, Keeper, proven
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.metering import Meter, Progress
from remote.backup.receipts import Kept, ReceiptBook
from remote.errors import CopyRefused, DamagedCopy, NoSuchFile
from remote.host import Host
from remote.safekeeping import LISTED, Receipt, StoredFile

_PIECE = 8 << 20


class HostSafekeeper(Keeper):
    """The Safekeeper whose place is `folder` on the machine `host`."""

    def __init__(self, host: Host, folder: str, receipts: Path, label: str | None = None,
                 settle: float = SETTLE_S) -> None:
        super().__init__(ReceiptBook(receipts), label, settle)
        self._host, self.folder = host, folder.rstrip("/") or "/"
        self.name = f"{host.name}:{self.folder}"
        self.destination = f"ssh:{self.name}"

    def _open(self) -> None:
        made = self._host.run(["mkdir", "-p", self.folder])
        if made.rc != 0:
            raise CopyRefused(f"{self.name} cannot hold copies: {made.err.decode(errors='replace').strip()}")

    def _copy(self, box: Box, found: CheckpointFiles, manifest: Manifest, progress: Progress) -> Kept:
        wrong = {kept.place for kept in self.receipts.all() if kept.withdrawn}
        for place in self._places(manifest):
            if place in wrong:
                continue
            held = self._manifest(place)
            if held is not None and held[0].content == manifest.content:
                return self._kept(held[0], place, held[1])
            if held is None and not self._taken(place):
                return self._send(box, found, manifest, place, progress)
        raise CopyRefused(f"{self.name} holds a thousand different copies of {found.id}")

    @staticmethod
    def _places(manifest: Manifest) -> Iterator[str]:
        second = backup_manifest.second_place(manifest)
        yield from (backup_manifest.place_of(manifest), second, *(f"{second}-{n}" for n in range(2, 1000)))

    def _taken(self, place: str) -> bool:
        """Something with another content lies there; what we began ourselves has our content in its name."""
        return self._host.run(["test", "-e", f"{self.folder}/{place}"]).rc == 0

    def _manifest(self, place: str) -> tuple[Manifest, bytes] | None:
        try:
            text = self._host.read(f"{self.folder}/{place}/{MANIFEST}", 0, backup_manifest.MAX_BYTES + 1)
            return backup_manifest.load(text), text
        except (NoSuchFile, DamagedCopy):
            return None

    def _send(self, box: Box, found: CheckpointFiles, manifest: Manifest, place: str, progress: Progress) -> Kept:
        incoming = f"{self.folder}/incoming/{manifest.content[:24]}"
        there = Box(self._host, box.stop)
        for name, path, stat in found.parts():
            meter = Meter(progress, found.id, name, "send", stat.bytes)
            if not self._holds(there, f"{incoming}/{name}", manifest.files[name]):
                meter.start()
                self._put(box, path, f"{incoming}/{name}", stat.bytes)
            meter(stat.bytes)
            if box.stop.is_set():
                raise Interrupted
        text = backup_manifest.dump(manifest)
        for name, data in ((SUMS, backup_manifest.sums(manifest, text)), (MANIFEST, text)):
            self._put_bytes(data, f"{incoming}/{name}")
        target = f"{self.folder}/{place}"
        moved = self._host.run(["sh", "-c", 'mkdir -p "$(dirname "$2")" && test ! -e "$2" && mv "$1" "$2" && sync',
                                "sh", incoming, target])
        if moved.rc != 0:
            raise CopyRefused(f"{self.name} has got another {place} meanwhile; back up again to use another path")
        return self._kept(manifest, place, text)

    def _holds(self, there: Box, path: str, file: StoredFile) -> bool:
        """Whether an earlier try brought this file whole."""
        found = self._host.stat(path)
        if found is None or found.size != file.bytes:
            return False
        return bool(there.examine(path, lambda done: None).get("sha256") == file.sha256)

    def _put(self, box: Box, path: str, target: str, size: int) -> None:
        if box.here:
            self._host.put(Path(path), target)
            return
        with tempfile.TemporaryDirectory(dir=self.receipts.folder) as folder:
            local = Path(folder) / "passing"
            with open(local, "wb") as f:
                while f.tell() < size and (chunk := box.host.read(path, f.tell(), _PIECE)):
                    f.write(chunk)
                    if box.stop.is_set():
                        raise Interrupted
            self._host.put(local, target)

    def _put_bytes(self, data: bytes, target: str) -> None:
        self.receipts.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.receipts.folder) as folder:
            local = Path(folder) / "small"
            local.write_bytes(data)
            self._host.put(local, target)

    def _kept(self, manifest: Manifest, place: str, text: bytes) -> Kept:
        receipt = Receipt(self.destination, f"{self.name}/{place}", manifest.checkpoint, dict(manifest.files), LISTED,
                          time.time())
        return Kept(receipt, place, hashlib.sha256(text).hexdigest())

    def prove(self, kept: Kept, progress: Progress, stop: threading.Event, box: Box | None = None) -> Kept:
        """Hash every byte where it lies, by our own script. Raises DamagedCopy naming the file."""
        place, there = f"{self.folder}/{kept.place}", Box(self._host, stop)
        try:
            text = self._host.read(f"{place}/{MANIFEST}", 0, backup_manifest.MAX_BYTES + 1)
            manifest = backup_manifest.load(text, kept.manifest_sha256)
            if dict(manifest.files) != dict(kept.receipt.files):
                raise DamagedCopy("the manifest lists other files than the receipt")
            for name, file in manifest.files.items():
                meter = Meter(progress, kept.receipt.checkpoint, name, "prove", file.bytes)
                meter.start()
                reply = there.examine(f"{place}/{name}", meter)
                if reply.get("stopped"):
                    raise Interrupted
                if not reply["ok"] or (reply["stat"][0], reply["sha256"]) != (file.bytes, file.sha256):
                    raise DamagedCopy(f"{name} differs from the original")
                meter(file.bytes)
        except (DamagedCopy, NoSuchFile) as error:
            self.receipts.withdraw(kept, str(error))
            raise DamagedCopy(f"the copy at {kept.receipt.location} is not what was sent: {error}") from None
        return proven(kept)

    def resolves(self, kept: Kept) -> bool:
        place = f"{self.folder}/{kept.place}"
        try:
            text = self._host.read(f"{place}/{MANIFEST}", 0, backup_manifest.MAX_BYTES + 1)
            manifest = backup_manifest.load(text, kept.manifest_sha256)
        except (NoSuchFile, DamagedCopy):
            return False
        sizes = {name: self._host.stat(f"{place}/{name}") for name in manifest.files}
        return manifest.content == kept.content and all(
            (found := sizes[name]) is not None and found.size == file.bytes for name, file in manifest.files.items())

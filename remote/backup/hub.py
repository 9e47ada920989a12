"""Copies of checkpoints in a repository on the Hub, each proven by reading every byte back at its own commit.

    runs/<run>/<stage>/<tag>/<step>/   one commit puts everything there: files, manifest.json, SHA256SUMS

A path is used once: nothing is overwritten, nothing deleted, the visibility of a repository never changed; one that we
make is private. An answer "done" counts for nothing: the commit that it names is listed, asked for and read back, and a
commit whose answer was lost is looked for before it is repeated.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote.backup import manifest as backup_manifest
from remote.backup.box import Box
from remote.backup.checkpoint_files import CheckpointFiles
from remote.backup.hub_prove import Prover
from remote.backup.hub_send import Sender
from remote.backup.hub_token import find_token
from remote.backup.hub_wire import HubWire, MovedOn, Uncertain
from remote.backup.keeper import SETTLE_S, Keeper, proven
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.metering import Progress
from remote.backup.parts import PartBook
from remote.backup.receipts import Kept, ReceiptBook
from remote.errors import CopyRefused, DamagedCopy, NoSuchCopy
from remote.local import LocalHost
from remote.safekeeping import LISTED, Receipt, Transfer


class HubSafekeeper(Keeper):
    """The Safekeeper whose place is `repo` (OWNER/NAME) on the Hub; the token is found when it is needed.

    `prefix` is a folder in the repository that all copies go below. A repository that is public is only used when
    `public` says that it may be.
    """

    together = 1 << 30  # bytes that a kill while sending parts may cost

    def __init__(self, repo: str, receipts: Path, *, token: str | None = None, endpoint: str | None = None,
                 prefix: str = "", label: str | None = None, public: bool = False, repo_type: str = "model",
                 revision: str = "main", settle: float = SETTLE_S, streams: int = 3, timeout: float = 60.0,
                 attempts: int = 5, pause: float = 1.0) -> None:
        super().__init__(ReceiptBook(receipts), label, settle)
        self.repo, self._prefix, self._public, self._streams = repo, prefix.strip("/"), public, streams
        self._token, self._options = token, {"endpoint": endpoint, "repo_type": repo_type, "revision": revision,
                                             "timeout": timeout, "attempts": attempts, "pause": pause}
        self.name, self.destination = repo, f"hub:{repo}"

    def wire(self, stop: threading.Event | None = None) -> HubWire:
        token = self._token or find_token()
        return HubWire(self.repo, token, stop=stop, **self._options)  # type: ignore[arg-type]

    def _open(self) -> None:
        """Make the repository if it is not there. Raises TokenRefused; CopyRefused when it is public and may not be."""
        wire = self.wire()
        made = wire.create()
        private = wire.info().get("private") is not False
        self.name = f"{self.repo} ({'private' if private else 'public'})"
        if private or self._public:
            return
        if made:
            raise CopyRefused(f"{self.repo} was made public although it was to be private; nothing was sent")
        raise CopyRefused(f"{self.repo} is public: what goes there is published. Nothing was sent; name a private "
                          "repository, or say --public")

    def _copy(self, box: Box, found: CheckpointFiles, manifest: Manifest, progress: Progress) -> Kept:
        wire = self.wire(box.stop)
        wire.on_wait = lambda note: progress(Transfer(found.id, "", "send", 0, manifest.bytes, 0.0, note))
        for place in self._places(manifest):
            there = self._there(wire, wire.head_commit(), place, manifest.content)
            if there is not None:
                return there
            if not wire.tree(wire.head_commit(), place):
                return self._send(wire, box, found, manifest, place, progress)
        raise CopyRefused(f"{self.repo} holds a thousand different copies of {found.id}")

    def _places(self, manifest: Manifest) -> Iterator[str]:
        wrong = {kept.place for kept in self.receipts.all()
                 if kept.withdrawn and kept.receipt.destination == self.destination}
        before = f"{self._prefix}/" if self._prefix else ""
        second = backup_manifest.second_place(manifest)
        candidates = [backup_manifest.place_of(manifest), second, *(f"{second}-{n}" for n in range(2, 1000))]
        return (place for place in (before + candidate for candidate in candidates) if place not in wrong)

    def _there(self, wire: HubWire, revision: str, place: str, content: str) -> Kept | None:
        """The copy of this content at `place`, if a commit holds it whole as far as its listing says."""
        listed = {entry.path: entry for entry in wire.tree(revision, place)}
        if f"{place}/{MANIFEST}" not in listed:
            return None
        try:
            text = wire.small_file(revision, f"{place}/{MANIFEST}")
            manifest = backup_manifest.load(text)
        except (DamagedCopy, NoSuchCopy):
            return None
        right = all(f"{place}/{name}" in listed and listed[f"{place}/{name}"].size == file.bytes
                    and listed[f"{place}/{name}"].sha256 in (None, file.sha256)
                    for name, file in manifest.files.items())
        return self._kept(manifest, place, revision, text) if right and manifest.content == content else None

    def _kept(self, manifest: Manifest, place: str, revision: str, text: bytes) -> Kept:
        receipt = Receipt(self.destination, f"{self.repo}@{revision}/{place}", manifest.checkpoint,
                          dict(manifest.files), LISTED, time.time())
        return Kept(receipt, place, hashlib.sha256(text).hexdigest(), revision)

    def _send(self, wire: HubWire, box: Box, found: CheckpointFiles, manifest: Manifest, place: str,
              progress: Progress) -> Kept:
        sender = Sender(wire, box, self.hashes, PartBook(self.receipts.folder, self.destination), progress,
                        self._streams, self.together)
        inside = sender.send_all(found, manifest.files, place)
        text = backup_manifest.dump(manifest)
        own = {MANIFEST: text, SUMS: backup_manifest.sums(manifest, text)}
        lines = [_header(found)]
        for name, data in {**inside, **own}.items():
            entry = _file(f"{place}/{name}", data) if data is not None else _lfs_file(
                f"{place}/{name}", manifest.files[name].sha256, manifest.files[name].bytes)
            lines.append(entry)
        revision = self._commit(wire, lines, place, manifest)
        return self._kept(manifest, place, revision, text)

    def _commit(self, wire: HubWire, lines: list[dict[str, Any]], place: str, manifest: Manifest) -> str:
        """Commit once, whatever is answered: after a doubt the head is looked at before another try."""
        number = 0
        while True:
            number += 1
            parent = wire.head_commit()
            there = self._there(wire, parent, place, manifest.content)
            if there is not None:
                return parent
            if wire.tree(parent, place):
                raise CopyRefused(f"{self.repo} has got another {place} meanwhile; back up again to use another path")
            try:
                return wire.commit(lines, parent)
            except MovedOn:
                wire.wait(number, "somebody else committed to the repository")
            except Uncertain as doubt:
                wire.wait(number, str(doubt))

    def prove(self, kept: Kept, progress: Progress, stop: threading.Event, box: Box | None = None) -> Kept:
        """Listing, headers, then every byte at the receipt's own commit."""
        where = box or Box(LocalHost(), stop)
        wire = self.wire(stop)
        wire.on_wait = lambda note: progress(Transfer(kept.receipt.checkpoint, "", "prove", 0, 0, 0.0, note))
        try:
            Prover(wire, where, progress, self._streams).prove(kept)
        except DamagedCopy as error:
            self.receipts.withdraw(kept, str(error))
            raise DamagedCopy(f"the copy at {kept.receipt.location} is not what was sent: {error}") from None
        except NoSuchCopy as error:
            self.receipts.withdraw(kept, "it is not there")
            raise DamagedCopy(f"the copy at {kept.receipt.location} is not there: {error}") from None
        return proven(kept)

    def resolves(self, kept: Kept) -> bool:
        try:
            Prover(self.wire(), Box(LocalHost()), lambda _: None, 1).listed(kept)
        except (DamagedCopy, NoSuchCopy):
            return False
        return True


def _header(found: CheckpointFiles) -> dict[str, Any]:
    return {"key": "header", "value": {"summary": f"Checkpoint {found.id}", "description": ""}}


def _file(path: str, data: bytes) -> dict[str, Any]:
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}}


def _lfs_file(path: str, sha256: str, size: int) -> dict[str, Any]:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256, "size": size}}


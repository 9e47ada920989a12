"""What every place for copies has in common: freeze, hash, copy, prove, keep the receipt; and the gate.

A place fills in four methods. What goes wrong with one checkpoint is told as its Loss and the others go on; only a
machine or a place that cannot be reached at all ends a round.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Collection, Mapping
from typing import NoReturn

from remote.backup import checkpoint_files
from remote.backup import manifest as backup_manifest
from remote.backup.box import Box
from remote.backup.checkpoint_files import CheckpointFiles, Inventory
from remote.backup.manifest import Manifest
from remote.backup.metering import Meter, Progress
from remote.backup.receipts import Examined, HashBook, Kept, ReceiptBook
from remote.errors import CopyRefused, DamagedCopy
from remote.host import Host
from remote.local import LocalHost
from remote.safekeeping import READ_BACK, BackedUp, CheckpointId, Loss, Receipt, StoredFile

SETTLE_S = 2.0  # files must have been still for so long


class Interrupted(Exception):
    """The caller asked to stop; what was done stays done."""


class Keeper:
    """A Safekeeper without a place. `label` names the run in paths where the base directory does not."""

    name = ""
    destination = ""

    def __init__(self, receipts: ReceiptBook, label: str | None = None, settle: float = SETTLE_S) -> None:
        self.receipts, self.hashes = receipts, HashBook(receipts.folder / "hashes.json")
        self._label, self._settle = label, settle

    # What a place fills in.

    def _open(self) -> None:
        """Make sure that the place can take copies. Raises RemoteError."""
        raise NotImplementedError

    def _copy(self, box: Box, found: CheckpointFiles, manifest: Manifest, progress: Progress) -> Kept:
        """Bring everything there under a name that is not in use, or find it there; proven to LISTED at most.

        Raises DamagedCopy, CopyRefused, Interrupted, RemoteError.
        """
        raise NotImplementedError

    def prove(self, kept: Kept, progress: Progress, stop: threading.Event, box: Box | None = None) -> Kept:
        """Read every byte back and compare; the receipt as it is now. Raises DamagedCopy naming the file."""
        raise NotImplementedError

    def resolves(self, kept: Kept) -> bool:
        """Whether the copy is still listed as the receipt says. Raises RemoteError when that cannot be known."""
        raise NotImplementedError

    # Backing up.

    def back_up(self, host: Host, base: str, progress: Progress, stop: threading.Event,
                only: Collection[CheckpointId] | None = None) -> BackedUp:
        """`safekeeping.Safekeeper.back_up`; `only` limits it to some checkpoints."""
        box = Box(host, stop, base)
        frozen = self.freeze(box, base)
        receipts: list[Receipt] = []
        failed = [Loss(found.id, found.bytes, found.problem) for found in frozen.checkpoints
                  if found.problem and (only is None or found.id in only)]
        self._open()
        for found in in_order(frozen):
            if only is not None and found.id not in only:
                continue
            if stop.is_set():
                failed.append(Loss(found.id, found.bytes, "stopped before its turn"))
                continue
            try:
                receipts.append(self._keep(box, found, progress).receipt)
            except Interrupted:
                failed.append(Loss(found.id, found.bytes, "stopped; what was sent is not sent again"))
            except (DamagedCopy, CopyRefused) as error:
                failed.append(Loss(found.id, found.bytes, str(error)))
        return BackedUp(tuple(receipts), tuple(failed))

    def freeze(self, box: Box, base: str) -> Inventory:
        """The checkpoints whose files are still; the others carry that as their problem."""
        first = checkpoint_files.inventory(box, base)
        if all(first.now - found.changed >= self._settle for found in first.checkpoints):
            return first
        box.stop.wait(self._settle)
        second = checkpoint_files.inventory(box, base)
        return Inventory(second.base, second.now, tuple(_still(first, found) for found in second.checkpoints))

    def _keep(self, box: Box, found: CheckpointFiles, progress: Progress) -> Kept:
        files = self._promised(box, found, progress)
        manifest = backup_manifest.of_checkpoint(found, files, self._label or backup_manifest.run_label(
            found.folder.removesuffix(found.id.folder).rstrip("/"), found.id.folder))
        for kept in self.receipts.standing(manifest.content, self.destination):
            if self.resolves(kept):
                return kept
            self.receipts.withdraw(kept, "it is not listed any more")
        kept = self._copy(box, found, manifest, progress)
        self._unchanged(box, found)
        proven = self.prove(kept, progress, box.stop, box)
        self.receipts.keep(proven)
        return proven

    def _promised(self, box: Box, found: CheckpointFiles, progress: Progress) -> dict[str, StoredFile]:
        """Sizes and hashes: the trainer's own where it wrote a manifest, else by reading. Sending compares them."""
        files = {}
        for name, path, stat in found.parts():
            if name in found.expected:
                files[name] = found.expected[name]
            else:
                examined = self._examined(box, found, name, path, stat, progress)
                files[name] = StoredFile(stat.bytes, examined.sha256)
        return files

    def _examined(self, box: Box, found: CheckpointFiles, name: str, path: str, stat: checkpoint_files.Stat,
                  progress: Progress) -> Examined:
        known = self.hashes.known(box.host.name, path, stat)
        if known is None:
            meter = Meter(progress, found.id, name, "hash", stat.bytes)
            meter.start()
            reply = box.examine(path, meter)
            if not reply["ok"]:
                _fail(reply)
            if reply["stat"] != [stat.bytes, stat.mtime, stat.ctime, stat.inode]:
                raise DamagedCopy(f"{name} was changed meanwhile")
            known = Examined(reply["sha256"], reply["problem"])
            self.hashes.remember(box.host.name, path, stat, known)
        if known.problem:
            raise DamagedCopy(known.problem)
        return known

    def _unchanged(self, box: Box, found: CheckpointFiles) -> None:
        base = found.folder.removesuffix(found.id.folder).rstrip("/")
        now = checkpoint_files.inventory(box, base).find(found.id)
        if now is None or now.files != found.files or now.tokenizer != found.tokenizer:
            raise DamagedCopy("its files were changed while they were copied")

    # The gate.

    def unproven(self, host: Host, base: str) -> list[Loss]:
        """`safekeeping.Safekeeper.unproven`: [] is the only answer that means safe."""
        box = Box(host, None, base)
        listing = checkpoint_files.inventory(box, base)
        losses = [Loss(found.id, found.bytes, f"it is newer than any whole one, and {found.problem}")
                  for found in listing.unfinished()]
        for found in listing.newest():
            reason = self._why_not(box, found)
            if reason is not None:
                losses.append(Loss(found.id, found.bytes, reason))
        return losses

    def holds(self, found: CheckpointFiles, kept: Kept) -> bool:
        """Whether a receipt speaks of exactly what lies on this machine; reads what was not read before."""
        box = Box(LocalHost())
        try:
            now = {name: StoredFile(stat.bytes, self._examined(box, found, name, path, stat, lambda _: None).sha256)
                   for name, path, stat in found.parts()}
        except DamagedCopy:
            return False
        return kept.content == backup_manifest.content_id(now)

    def _why_not(self, box: Box, found: CheckpointFiles) -> str | None:
        names = {name: stat.bytes for name, _, stat in found.parts()}
        mine = [kept for kept in self.receipts.all() if kept.receipt.destination == self.destination
                and f"model_{found.id.step:06d}.pt" in kept.receipt.files]
        standing = [kept for kept in mine if kept.stands
                    and {name: file.bytes for name, file in kept.receipt.files.items()} == names]
        if not standing:
            revoked = next((kept.withdrawn for kept in mine if kept.withdrawn), "")
            return f"its copy does not count: {revoked}" if revoked else "there is no proven copy of it"
        try:
            now = {name: StoredFile(stat.bytes, self._examined(box, found, name, path, stat, lambda _: None).sha256)
                   for name, path, stat in found.parts()}
        except DamagedCopy as error:
            return str(error)
        matching = [kept for kept in standing if kept.content == backup_manifest.content_id(now)]
        if not matching:
            return "it was changed since it was copied"
        if not any(self.resolves(kept) for kept in matching):
            return f"its copy is not at {matching[0].receipt.location} any more"
        return None


def in_order(listing: Inventory) -> list[CheckpointFiles]:
    """What the gate asks for first: the newest of each folder, then the others from new to old."""
    newest = sorted(listing.newest(), key=lambda found: -found.changed)
    first = {found.id for found in newest}
    rest = [found for found in listing.checkpoints if found.problem is None and found.id not in first]
    return newest + sorted(rest, key=lambda found: -found.changed)


def proven(kept: Kept, files: Mapping[str, StoredFile] | None = None) -> Kept:
    """The receipt after every byte was read back now."""
    old = kept.receipt
    receipt = Receipt(old.destination, old.location, old.checkpoint, files or old.files, READ_BACK, time.time())
    return Kept(receipt, kept.place, kept.manifest_sha256, kept.revision)


def _still(first: Inventory, found: CheckpointFiles) -> CheckpointFiles:
    before = first.find(found.id)
    if before is not None and before.files == found.files:
        return found
    return dataclasses.replace(found, problem=found.problem or "it is still being written")


def _fail(reply: Mapping[str, object]) -> NoReturn:
    """An answer of the box that is a no."""
    if reply.get("stopped"):
        raise Interrupted
    raise DamagedCopy(str(reply["reason"]))

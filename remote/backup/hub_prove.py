"""Believes a copy on the Hub only after reading it: its listing, then its headers, then every byte, at one commit.

The bytes come back by another way than they went: the file's own address at that commit, not the storage that took
them. They are hashed where the box is, from a signed URL without the token, and kept nowhere. A wrong byte is asked for
once more, since the way back may be at fault; wrong twice is a damaged copy. Needs no right to write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from remote.backup import manifest as backup_manifest
from remote.backup.box import Box
from remote.backup.hub_http import TryAgain
from remote.backup.hub_wire import HubWire, Listed
from remote.backup.keeper import Interrupted
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.metering import Meter, Progress
from remote.backup.receipts import Kept
from remote.errors import DamagedCopy, HubUnreachable
from remote.safekeeping import StoredFile

_PIECE = 1 << 20


@dataclass(frozen=True)
class Prover:
    """Reads from one repository, on one box."""

    wire: HubWire
    box: Box
    progress: Progress
    streams: int = 3

    def prove(self, kept: Kept) -> None:
        """Raises DamagedCopy naming what differs, NoSuchCopy, HubUnreachable, Interrupted."""
        files = self._with_sums(kept, self.manifest(kept))
        self._compare_listing(kept, files)
        with ThreadPoolExecutor(max_workers=self.streams) as pool:
            jobs = [pool.submit(self._prove_file, kept, name, file) for name, file in files.items()]
            for job in jobs:
                job.result()

    def manifest(self, kept: Kept) -> Manifest:
        """The manifest at the receipt's commit, which must be the receipt's."""
        text = self.wire.small_file(kept.revision, f"{kept.place}/{MANIFEST}")
        manifest = backup_manifest.load(text, kept.manifest_sha256)
        if dict(manifest.files) != dict(kept.receipt.files):
            raise DamagedCopy("the manifest lists other files than the receipt")
        return manifest

    def listed(self, kept: Kept) -> None:
        """The first level alone: the commit still lists every file with its size and hash. Raises as `prove`."""
        self._compare_listing(kept, kept.receipt.files)

    def _with_sums(self, kept: Kept, manifest: Manifest) -> dict[str, StoredFile]:
        text = backup_manifest.sums(manifest, backup_manifest.dump(manifest))
        return {**manifest.files, SUMS: StoredFile(len(text), hashlib.sha256(text).hexdigest())}

    def _compare_listing(self, kept: Kept, files: Mapping[str, StoredFile]) -> None:
        listed = {entry.path: entry for entry in self.wire.tree(kept.revision, kept.place)}
        for name in (*files, MANIFEST):
            entry = listed.get(f"{kept.place}/{name}")
            if entry is None:
                raise DamagedCopy(f"{name} is not listed")
            if name in files:
                _compare_entry(name, entry, files[name])

    def _prove_file(self, kept: Kept, name: str, file: StoredFile) -> None:
        meter = Meter(self.progress, kept.receipt.checkpoint, name, "prove", file.bytes)
        meter.start()
        path, tries, wrong = f"{kept.place}/{name}", 0, 0
        while True:
            if self.box.stop.is_set():
                raise Interrupted
            reply = self._read(kept.revision, path, name, file, meter)
            if reply["ok"] and (reply["bytes"], reply["sha256"]) == (file.bytes, file.sha256):
                meter(file.bytes)
                return
            if reply.get("stopped"):
                raise Interrupted
            tries, wrong = tries + 1, wrong + bool(reply["ok"])
            if wrong > 1 or (reply["status"] in (404, 410) and tries > 1):
                raise DamagedCopy(_difference(name, file, reply))
            self._wait(tries, reply, meter)

    def _wait(self, tries: int, reply: Mapping[str, Any], meter: Meter) -> None:
        reason = "other bytes than were sent" if reply["ok"] else f"{reply['reason']} while reading back"
        if tries >= self.wire.attempts:
            raise HubUnreachable(f"{reason}, after {tries} tries")
        again = "asked once more" if reply["ok"] else f"try {tries + 1} of {self.wire.attempts}"
        meter.say(f"{reason}, {again}")
        self.wire.stop.wait(min(self.wire.pause * 2 ** (tries - 1), 30.0))

    def _read(self, revision: str, path: str, name: str, file: StoredFile, meter: Meter) -> dict[str, Any]:
        """Headers of one file, which must agree, then its bytes."""
        head = self.wire.file_head(revision, path)
        if head.size is not None and head.size != file.bytes:
            raise DamagedCopy(f"{name} has {head.size:,} bytes there instead of {file.bytes:,}")
        if len(head.etag) == 64 and head.etag != file.sha256:
            raise DamagedCopy(f"{name} has another sha256 there")
        if head.location is not None and not self.wire.is_own(head.location):
            return self.box.fetch({"url": head.location, "timeout": self.wire.timeout}, meter)
        return self._read_here(self.wire.file_url(revision, path), meter)

    def _read_here(self, url: str, meter: Meter) -> dict[str, Any]:
        """A file that the Hub serves itself and wants the token for, which stays on this machine."""
        digest, done = hashlib.sha256(), 0
        try:
            with self.wire.stream(url) as reply:
                for piece in reply.iter_bytes(_PIECE):
                    digest.update(piece)
                    done += len(piece)
                    meter(done)
                    if self.box.stop.is_set():
                        raise Interrupted
        except (httpx.TransportError, TryAgain) as error:
            return {"ok": False, "status": 0, "reason": str(error) or type(error).__name__}
        return {"ok": True, "status": 200, "bytes": done, "sha256": digest.hexdigest()}


def _compare_entry(name: str, entry: Listed, file: StoredFile) -> None:
    if entry.size != file.bytes:
        raise DamagedCopy(f"{name} is listed with {entry.size:,} bytes instead of {file.bytes:,}")
    if entry.sha256 is not None and entry.sha256 != file.sha256:
        raise DamagedCopy(f"{name} is listed with another sha256")


def _difference(name: str, file: StoredFile, reply: Mapping[str, Any]) -> str:
    if not reply["ok"]:
        return f"{name} cannot be read back: {reply['reason']}"
    if reply["bytes"] != file.bytes:
        return f"{name} reads back as {reply['bytes']:,} bytes instead of {file.bytes:,}"
    return f"{name} reads back with other bytes than were sent"

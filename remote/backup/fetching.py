"""Brings one file here in parallel pieces, goes on where a crash left off; it appears only when its hash agrees.

    <name>.part        the bytes so far, holes and all
    <name>.part.done   what they are meant to be, then one line per piece that has arrived

Where the bytes come from is a function of the caller's: `open_range(begin, end)` yields them.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from remote.backup.keeper import Interrupted
from remote.backup.metering import Meter
from remote.backup.receipts import sync_folder
from remote.errors import DamagedCopy, HubUnreachable
from remote.safekeeping import StoredFile

LARGEST_PIECE, SMALLEST_PIECE = 16 << 20, 1 << 20
_HASH_PIECE = 4 << 20

OpenRange = Callable[[int, int], Iterator[bytes]]
"""The bytes from `begin` to `end`, exclusive. Raises RangeBroken when they stop early, NoRanges, HubUnreachable."""


class RangeBroken(Exception):
    """The connection ended early or the server was busy: the rest may be asked for. The text is the reason."""


class NoRanges(Exception):
    """The server sends whole files only."""


@dataclass(frozen=True)
class Patience:
    """How often a piece is asked for, and the seconds before the second time; each further wait is twice as long."""

    attempts: int = 5
    pause: float = 1.0


def fetch(open_range: OpenRange, target: Path, file: StoredFile, meter: Meter, stop: threading.Event,
          streams: int = 8, patience: Patience | None = None) -> None:
    """Bring the file to `target`. Raises DamagedCopy when its bytes are not those, Interrupted, HubUnreachable."""
    patience = patience or Patience()
    piece = max(min(-(-file.bytes // streams), LARGEST_PIECE), SMALLEST_PIECE)  # every stream has something to do
    for last in (False, True):  # what a power cut left may be holes: then once more from nothing
        part = _Part(target, file, piece)
        begun = part.begun
        try:
            _fill(open_range, part, meter, stop, streams, patience)
        except NoRanges:
            part.forget()
            part = _Part(target, file, max(file.bytes, 1))
            _fill(open_range, part, meter, stop, 1, patience)
            begun = False
        if part.sha256() == file.sha256:
            part.finish()
            return
        part.forget()
        if last or not begun:
            break
    raise DamagedCopy(f"{target.name} came with other bytes than its manifest promises")


def _fill(open_range: OpenRange, part: _Part, meter: Meter, stop: threading.Event, streams: int,
          patience: Patience) -> None:
    meter.start(part.have)
    missing = part.missing()
    if not missing:
        return
    work = _Work(open_range, part, meter, stop, patience)
    with ThreadPoolExecutor(max_workers=min(streams, len(missing))) as pool:
        jobs = [pool.submit(work.bring, index) for index in missing]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            work.failed.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Part:
    """The file while it is not whole, and its sidecar."""

    def __init__(self, target: Path, file: StoredFile, piece: int) -> None:
        self.target, self.file, self.piece = target, file, piece
        self.path = target.with_name(f"{target.name}.part")
        self._side = target.with_name(f"{target.name}.part.done")
        self._guard = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._done = self._read()
        if not self._done:
            self._side.write_text(json.dumps(self._title()) + "\n")
            with open(self.path, "wb") as f:
                f.truncate(file.bytes)
        self.begun = bool(self._done)
        self.have = sum(self.length(index) for index in self._done)

    def _title(self) -> dict[str, object]:
        return {"sha256": self.file.sha256, "bytes": self.file.bytes, "piece": self.piece}

    def _read(self) -> set[int]:
        """The pieces that have arrived; none when the sidecar speaks of another file."""
        try:
            lines = self._side.read_text().splitlines(keepends=True)
            if json.loads(lines[0]) != self._title() or self.path.stat().st_size != self.file.bytes:
                return set()
            return {int(line) for line in lines[1:] if line.endswith("\n") and int(line) < self.count}
        except (OSError, ValueError, IndexError):
            return set()

    @property
    def count(self) -> int:
        return -(-self.file.bytes // self.piece)

    def length(self, index: int) -> int:
        return min(self.piece, self.file.bytes - index * self.piece)

    def missing(self) -> list[int]:
        return [index for index in range(self.count) if index not in self._done]

    def arrived(self, index: int) -> None:
        with self._guard, open(self._side, "a") as f:
            f.write(f"{index}\n")

    def count_bytes(self, count: int) -> int:
        with self._guard:
            self.have += count
            return self.have

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with open(self.path, "rb") as f:
            while chunk := f.read(_HASH_PIECE):
                digest.update(chunk)
        return digest.hexdigest()

    def finish(self) -> None:
        with open(self.path, "rb") as f:
            os.fsync(f.fileno())
        os.replace(self.path, self.target)
        self._side.unlink(missing_ok=True)
        sync_folder(self.target.parent)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._side.unlink(missing_ok=True)


class _Work:
    """What the threads of one file share."""

    def __init__(self, open_range: OpenRange, part: _Part, meter: Meter, stop: threading.Event,
                 patience: Patience) -> None:
        self._open, self._part, self._meter, self._stop, self._patience = open_range, part, meter, stop, patience
        self.failed = threading.Event()

    def bring(self, index: int) -> None:
        """One piece, from where it was cut each time."""
        begin = index * self._part.piece
        end = begin + self._part.length(index)
        tries = 0
        with open(self._part.path, "r+b", buffering=0) as f:
            while begin < end:
                reached, reason = self._once(f.fileno(), begin, end)
                tries = tries + 1 if reached == begin else 1
                begin = reached
                if reason:
                    self._wait(tries, reason)
        self._part.arrived(index)

    def _once(self, fd: int, begin: int, end: int) -> tuple[int, str]:
        """Ask once; how far that came, and why not further."""
        try:
            for chunk in self._open(begin, end):
                self._check()
                os.pwrite(fd, chunk, begin)
                begin += len(chunk)
                self._meter(self._part.count_bytes(len(chunk)))
        except RangeBroken as error:
            return begin, str(error)
        return begin, ""

    def _check(self) -> None:
        if self._stop.is_set() or self.failed.is_set():
            raise Interrupted

    def _wait(self, tries: int, reason: str) -> None:
        self._check()
        if tries >= self._patience.attempts:
            raise HubUnreachable(f"{reason}, after {tries} tries")
        pause = min(self._patience.pause * 2 ** (tries - 1), 30.0)
        self._meter.say(f"{reason}, try {tries + 1} of {self._patience.attempts} in {pause:.0f} s", self._part.have)
        self._stop.wait(pause)

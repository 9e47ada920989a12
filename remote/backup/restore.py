"""Puts a copy of a checkpoint back below a base directory: the manifest first, then every file, if it is right.

Files are brought beside their place and renamed into it when all of them agree; the manifest of the trainer comes last,
so that a checkpoint is there whole or not at all. What is in the way is moved aside, never removed. A tokenizer that is
not the one the weights were trained with is a reason to refuse. No tensor is opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote.backup import fetching
from remote.backup import manifest as backup_manifest
from remote.backup.checkpoint_files import importance
from remote.backup.fetching import Patience
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.metering import Meter, Progress
from remote.backup.receipts import sync_folder, write_synced
from remote.backup.sources import Source
from remote.errors import CopyRefused, DamagedCopy
from remote.safekeeping import StoredFile

_SPARE = 64 << 20  # bytes of disk that stay free
WORKPLACE = ".restoring"

SameTokenizer = Callable[[Path, Path], bool]
"""Whether two tokenizer folders hold the same vocabulary, for files that differ."""


@dataclass(frozen=True)
class Verdict:
    """What became of one file: restored, or "was there" already."""

    file: str
    word: str
    bytes: int


@dataclass(frozen=True)
class Restored:
    """A checkpoint that is whole on this machine now. `moved_aside` is where what was in its place went."""

    folder: Path
    step: int
    verdicts: tuple[Verdict, ...]
    moved_aside: Path | None = None


def read_manifest(source: Source, sha256: str | None = None) -> Manifest:
    """What the source says that it holds. Raises DamagedCopy, NoSuchCopy.

    `sha256` is what a receipt says of the manifest; without a receipt, SHA256SUMS must agree with it.
    """
    text = source.small(MANIFEST)
    manifest = backup_manifest.load(text, sha256)
    if sha256 is None and source.small(SUMS) != backup_manifest.sums(manifest, text):
        raise DamagedCopy(f"{MANIFEST} and {SUMS} do not agree")
    return manifest


def restore(source: Source, manifest: Manifest, base: Path, progress: Progress, stop: threading.Event, *,
            optimizer: bool = True, same_tokenizer: SameTokenizer | None = None,
            patience: Patience | None = None) -> Restored:
    """Bring the copy below `base`. What arrived before is not brought twice; every byte is compared.

    `optimizer=False` leaves out what only a resume needs. Raises CopyRefused, DamagedCopy, Interrupted, HubUnreachable.
    """
    files = {name: file for name, file in manifest.files.items() if optimizer or not name.startswith("optim_")}
    _require_all_ranks(manifest, files, optimizer)
    work = base / WORKPLACE / manifest.content[:24]
    try:
        with _alone(base):
            plan = _Plan(manifest, base, work, files)
            _require_space(base, plan)
            bring = _Bringer(source, plan, progress, stop, patience)
            small = [name for name in plan.to_bring if importance(name) == 0]
            with ThreadPoolExecutor(max_workers=source.streams) as pool:  # each costs a round trip or two
                list(pool.map(bring, small))
            plan.require_tokenizer(same_tokenizer)  # refuse before the weights, not after
            for name in plan.to_bring:
                if name not in small:
                    bring(name)
            return plan.put_in_place()
    except OSError as error:
        raise CopyRefused(f"{error.filename or base}: {error.strerror or error}; nothing that was there has changed"
                          ) from error


@dataclass(frozen=True)
class _Bringer:
    """Brings one file to the workplace, unless an earlier try did."""

    source: Source
    plan: _Plan
    progress: Progress
    stop: threading.Event
    patience: Patience | None

    def __call__(self, name: str) -> None:
        file, target = self.plan.files[name], self.plan.work / name
        if not _holds(target, file):
            meter = Meter(self.progress, self.plan.manifest.checkpoint, name, "receive", file.bytes)
            fetching.fetch(lambda begin, end: self.source.open_range(name, begin, end), target, file, meter, self.stop,
                           self.source.streams, self.patience)


class _Plan:
    """What is where, before and after. `work` is where files arrive."""

    def __init__(self, manifest: Manifest, base: Path, work: Path, files: Mapping[str, StoredFile]) -> None:
        self.manifest, self.base, self.work, self.files = manifest, base, work, files
        self.folder = base / backup_manifest.stage_folder(manifest.stage) / manifest.tag
        self.there = {name for name, file in files.items() if _holds(self.place(name), file)}
        self.to_bring = sorted((name for name in files if name not in self.there), key=importance)

    def place(self, name: str) -> Path:
        return self.base / name if name.startswith("tokenizer/") else self.folder / name

    def require_tokenizer(self, same: SameTokenizer | None) -> None:
        """The vocabulary beside the checkpoint must be its own."""
        mine, theirs = self.base / "tokenizer", self.work / "tokenizer"
        if not (theirs / "tokenizer.pkl").exists() or not (mine / "tokenizer.pkl").exists():
            return
        if same is not None and same(mine, theirs):
            return
        raise CopyRefused(f"{mine} holds another tokenizer than {self.manifest.checkpoint} was trained with; restore "
                          "it to a folder of its own")

    def put_in_place(self) -> Restored:
        aside = self._move_aside()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(self.to_bring, key=importance, reverse=True):  # meta last: without it a model is none
            target = self.place(name)
            if name.startswith("tokenizer/") and target.exists():
                continue  # the same vocabulary in other bytes
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.work / name, target)
        sync_folder(self.folder)
        self._write_manifest()
        shutil.rmtree(self.work, ignore_errors=True)
        verdicts = tuple(Verdict(name, "was there" if name in self.there else "restored", file.bytes)
                         for name, file in sorted(self.files.items()))
        return Restored(self.folder, self.manifest.checkpoint.step, verdicts, aside)

    def _move_aside(self) -> Path | None:
        """The whole folder, if a file of another content has a name that we need."""
        own = [name for name in self.to_bring if not name.startswith("tokenizer/")]
        if not any((self.folder / name).exists() for name in own):
            return None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = self.base / "replaced" / f"{self.folder.parent.name}-{self.manifest.tag}-{stamp}-{os.getpid()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        for name in self.there:  # these stay part of what is restored
            if not name.startswith("tokenizer/"):
                (self.work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, self.work / name)
                self.to_bring.append(name)
        self.folder.rename(aside)
        return aside

    def _write_manifest(self) -> None:
        """The trainer's own where it is true of what is here, else one that is."""
        step = self.manifest.checkpoint.step
        files = {n: f for n, f in self.files.items() if not n.startswith("tokenizer/")}
        text = self.manifest.source_manifest
        if text is None or len(files) < sum(not n.startswith("tokenizer/") for n in self.manifest.files):
            fields = {"v": 1, "step": step, "source": self.manifest.stage, "created": self.manifest.created,
                      "tokenizer_sha256": json.loads(text).get("tokenizer_sha256", "") if text else "",
                      "files": {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in files.items()}}
            if self.manifest.val_bpb is not None:
                fields["val_bpb"] = self.manifest.val_bpb
            text = json.dumps(fields, indent=2)
        write_synced(self.folder / f"manifest_{step:06d}.json", text.encode())


def _require_all_ranks(manifest: Manifest, files: Mapping[str, StoredFile], optimizer: bool) -> None:
    ranks = sum(name.startswith("optim_") for name in files)
    if optimizer and ranks != manifest.world_size:
        raise DamagedCopy(f"the copy holds optimizer state of {ranks} processes and {manifest.world_size} saved it")


def _holds(path: Path, file: StoredFile) -> bool:
    """Whether this very file is there already."""
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def _require_space(base: Path, plan: _Plan) -> None:
    need = sum(plan.files[name].bytes for name in plan.to_bring) + _SPARE
    need -= sum(path.stat().st_blocks * 512 for path in plan.work.rglob("*") if path.is_file())
    free = shutil.disk_usage(base).free
    if free < need:
        raise CopyRefused(f"{base} has {free / 1e9:.2f} GB free and {need / 1e9:.2f} GB are needed; free some, or "
                          "restore to another disk")


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    (base / WORKPLACE).mkdir(parents=True, exist_ok=True)
    with open(base / WORKPLACE / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CopyRefused(f"another restore into {base} is under way; wait for it") from None
        yield

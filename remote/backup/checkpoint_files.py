"""Which checkpoints lie below a base directory of some machine, and whether each is whole. Torch-free.

Reads nanochat's layout of every era: with our manifest or without, with optimizer state of all ranks, of one, or in one
unsharded file, from stages that save it and stages that do not. Asks the machine through `remote.backup.box`; what a
file contains is only known to whoever hashed it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remote.backup.box import Box
from remote.safekeeping import CheckpointId, StoredFile

STAGE_FOLDERS = {"base": "base_checkpoints", "mid": "mid_checkpoints", "sft": "chatsft_checkpoints",
                 "rl": "chatrl_checkpoints"}
STAGE_OF = {folder: stage for stage, folder in STAGE_FOLDERS.items()}

_STEP = re.compile(r"(model|optim|meta|manifest)_([0-9]{6,9})(?:_rank([0-9]{1,4}))?\.(?:pt|json)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORST = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Stat:
    """A file whose numbers are unchanged was not written to meanwhile. Times in ns of that machine's clock."""

    bytes: int
    mtime: int
    ctime: int
    inode: int


@dataclass(frozen=True)
class CheckpointFiles:
    """One checkpoint where it lies. `files` are names in its folder, `tokenizer` names in the folder of that name.

    `expected` is what our own manifest promises, {} for one that nanochat wrote; `manifest_text` is that manifest.
    `problem`: why it is not whole, None when nothing speaks against it.
    """

    id: CheckpointId
    folder: str
    tokenizer_folder: str
    files: Mapping[str, Stat]
    tokenizer: Mapping[str, Stat]
    expected: Mapping[str, StoredFile] = field(default_factory=dict)
    manifest_text: str | None = None
    meta_text: str = ""
    val_bpb: float | None = None
    created: float | None = None
    problem: str | None = None

    @property
    def stage(self) -> str:
        return STAGE_OF[self.id.folder.split("/")[-2]]

    @property
    def tag(self) -> str:
        return self.id.folder.split("/")[-1]

    @property
    def bytes(self) -> int:
        return sum(stat.bytes for stat in self.files.values())

    @property
    def world_size(self) -> int:
        """How many processes saved it, told from its optimizer files; 0 when it has none."""
        return sum(name.startswith("optim_") for name in self.files)

    @property
    def changed(self) -> float:
        """When a file of it was last written, in seconds of that machine's clock."""
        return max((stat.mtime for stat in self.files.values()), default=0) / 1e9

    def parts(self) -> list[tuple[str, str, Stat]]:
        """(name in a copy, path on the machine, stat) of everything that belongs to it, weights first."""
        own = [(name, f"{self.folder}/{name}", stat) for name, stat in self.files.items()]
        beside = [(f"tokenizer/{name}", f"{self.tokenizer_folder}/{name}", stat)
                  for name, stat in self.tokenizer.items()]
        return sorted(own + beside, key=lambda part: (importance(part[0]), part[0]))


def importance(name: str) -> int:
    """The order of sending: what one can talk to first, what only a resume needs last."""
    file = name.rpartition("/")[2]
    return 3 if file.startswith("optim_") else 1 if file.startswith("model_") else 0


@dataclass(frozen=True)
class Inventory:
    """What lay below a base directory when `now` was that machine's time."""

    base: str
    now: float
    checkpoints: tuple[CheckpointFiles, ...]

    def newest(self) -> list[CheckpointFiles]:
        """The newest whole checkpoint of every folder."""
        best: dict[str, CheckpointFiles] = {}
        for found in self.checkpoints:
            if found.problem is None and (found.id.folder not in best or found.id.step > best[found.id.folder].id.step):
                best[found.id.folder] = found
        return list(best.values())

    def unfinished(self) -> list[CheckpointFiles]:
        """Those that are not whole and newer than every whole one of their folder: perhaps still being written."""
        newest = {found.id.folder: found.id.step for found in self.newest()}
        return [found for found in self.checkpoints
                if found.problem is not None and found.id.step > newest.get(found.id.folder, -1)]

    def find(self, wanted: CheckpointId) -> CheckpointFiles | None:
        return next((found for found in self.checkpoints if found.id == wanted), None)


def inventory(box: Box, base: str) -> Inventory:
    """Every checkpoint below `base` on the box, as listed now. Raises RemoteError when that cannot be known."""
    listing = box.inventory(base)
    found: list[CheckpointFiles] = []
    for folder in listing["folders"]:
        found += _checkpoints(listing["base"], folder, listing["tokenizers"])
    return Inventory(listing["base"], listing["now"], tuple(found))


def _checkpoints(base: str, folder: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> list[CheckpointFiles]:
    """The checkpoints of one folder, by step."""
    name = folder["folder"]
    stats = {file: Stat(*numbers) for file, numbers in folder["files"].items()}
    prefix = "".join(part + "/" for part in name.split("/")[:-2])
    tokenizer = {file: Stat(*numbers) for file, numbers in tokenizers.get(prefix, {}).items()}
    by_step: dict[int, dict[str, Stat]] = {}
    for file, stat in stats.items():
        if match := _STEP.fullmatch(file):
            by_step.setdefault(int(match[2]), {})[file] = stat
    ours = any(file.startswith("manifest_") for file in stats)
    ranks = max((sum(_is_rank(file) for file in files) for files in by_step.values()), default=0)
    place = _Place(f"{base}/{name}", f"{base}/{prefix}tokenizer", name, tokenizer, folder["texts"], ours, ranks)
    return [place.checkpoint(step, files) for step, files in sorted(by_step.items())]


def _is_rank(name: str) -> bool:
    match = _STEP.fullmatch(name)
    return match is not None and match[3] is not None


@dataclass(frozen=True)
class _Place:
    """What the folder says about every checkpoint in it. `ours`: we write manifests there; `ranks`: the most seen."""

    folder: str
    tokenizer_folder: str
    name: str
    tokenizer: Mapping[str, Stat]
    texts: Mapping[str, str | None]
    ours: bool
    ranks: int

    def checkpoint(self, step: int, files: Mapping[str, Stat]) -> CheckpointFiles:
        kinds = {match[1]: name for name in files if (match := _STEP.fullmatch(name))}
        text = self.texts.get(kinds.get("manifest", ""))
        meta_text = self.texts.get(kinds.get("meta", "")) or ""
        problem = self._problem(kinds, files, meta_text)
        expected: dict[str, StoredFile] = {}
        facts: dict[str, Any] = {}
        if "manifest" in kinds:
            expected, facts, damage = read_manifest(text, step)
            problem = problem or damage or _unlike(expected, files)
        elif self.ours:
            problem = "it was not saved to the end: its manifest is missing"
        own = {name: stat for name, stat in files.items() if not name.startswith("manifest_")}
        return CheckpointFiles(CheckpointId(self.name, step), self.folder, self.tokenizer_folder, own, self.tokenizer,
                               expected, text, meta_text, _number(facts.get("val_bpb") or _meta(meta_text).get(
                                   "val_bpb")), _number(facts.get("created")), problem)

    def _problem(self, kinds: Mapping[str, str], files: Mapping[str, Stat], meta_text: str) -> str | None:
        if "model" not in kinds:
            return "its model file is missing"
        if "meta" not in kinds:
            return "its meta file is missing"
        if not isinstance(_meta(meta_text).get("model_config"), dict):
            return "its meta file is damaged"
        empty = next((name for name, stat in files.items() if stat.bytes == 0), None)
        if empty:
            return f"{empty} is empty"
        return _missing_ranks(files, self.ranks)


def _missing_ranks(files: Iterable[str], ranks: int) -> str | None:
    """All ranks save at once: as many as any other step of the folder has, without a gap."""
    have = {int(match[3]) for name in files if (match := _STEP.fullmatch(name)) and match[3] is not None}
    unsharded = any(re.fullmatch(r"optim_[0-9]+\.pt", name) for name in files)
    wanted = max(ranks, max(have, default=-1) + 1)
    if unsharded or len(have) == wanted:
        return None
    return f"optimizer state of {wanted - len(have)} of {wanted} ranks is missing"


def _unlike(expected: Mapping[str, StoredFile], files: Mapping[str, Stat]) -> str | None:
    for name, promised in expected.items():
        if name not in files:
            return f"{name} is missing"
        if files[name].bytes != promised.bytes:
            return f"{name} has not the size that its manifest says"
    return None


def read_manifest(text: str | None, step: int) -> tuple[dict[str, StoredFile], dict[str, Any], str | None]:
    """The files that a manifest_<step>.json promises, its other facts, and what is wrong with it."""
    try:
        manifest = json.loads(text or "")
        files = {str(name): stored_file(entry) for name, entry in manifest["files"].items()}
        if manifest["step"] != step or f"model_{step:06d}.pt" not in files:
            raise ValueError("another checkpoint's")
        if not all(_STEP.fullmatch(name) for name in files):
            raise ValueError("a name that no checkpoint file has")
        rest = {key: value for key, value in manifest.items() if key != "check"}
        if "check" in manifest and manifest["check"] != hashlib.sha256(
                json.dumps(rest, sort_keys=True).encode()).hexdigest():
            raise ValueError("its check sum is another")
    except _WORST:
        return {}, {}, "its manifest is damaged"
    return files, manifest, None


def stored_file(entry: Any) -> StoredFile:
    """{"bytes", "sha256"} from JSON, strictly. Raises ValueError, KeyError or TypeError."""
    size, sha256 = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("no size or no sha256")
    return StoredFile(size, sha256)


def _meta(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except _WORST:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

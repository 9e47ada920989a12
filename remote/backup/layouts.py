"""Finds checkpoints among the files of somebody else's folder or repository, however they arranged them.

    nanochat's own     base_checkpoints/d20/model_021400.pt ...  tokenizer/tokenizer.pkl
    by stage           base/d20/model_021400.pt ...              tokenizer/latest/tokenizer.pkl
    flat               model_021400.pt  meta_021400.json  tokenizer.pkl
    bundles            tokenizer from one repository, weights from another: `repo::folder::pattern,pattern`
    ours               runs/<run>/<stage>/<tag>/<step>/manifest.json

Pure but for the small files it reads through a Source. What it cannot tell it takes from the caller, or refuses.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote.backup.checkpoint_files import STAGE_FOLDERS, STAGE_OF
from remote.backup.hub_wire import Listed
from remote.backup.manifest import MANIFEST, SUMS, Manifest
from remote.backup.sources import Source
from remote.errors import CopyRefused, DamagedCopy, NoSuchCopy
from remote.safekeeping import CheckpointId, StoredFile

_FILE = re.compile(r"(?P<kind>model|optim|meta)_(?P<step>[0-9]{6,9})(?:_rank[0-9]{1,4})?\.(?:pt|json)")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_TOKENIZER = ("tokenizer.pkl", "token_bytes.pt")
_SPEC = re.compile(r"(?P<repo>[^:@/]+/[^:@/]+)(?:@(?P<revision>[^:]+))?(?:::(?P<folder>[^:]*))?(?:::(?P<patterns>.*))?")


@dataclass(frozen=True)
class Spec:
    """`OWNER/NAME[@revision][::folder[::pattern,pattern]]`."""

    repo: str
    revision: str | None = None
    folder: str = ""
    patterns: tuple[str, ...] = ()


def parse_spec(text: str) -> Spec:
    match = _SPEC.fullmatch(text)
    if not match:
        raise CopyRefused(f"{text!r} is no source: give a folder, OWNER/NAME, or OWNER/NAME::folder::pattern,pattern")
    patterns = tuple(part for part in (match["patterns"] or "").split(",") if part)
    return Spec(match["repo"], match["revision"], (match["folder"] or "").strip("/"), patterns)


class Gathered:
    """Several sources as one; each contributes the files that its patterns admit, the first one wins."""

    def __init__(self, parts: Sequence[tuple[Source, tuple[str, ...]]]) -> None:
        self.name = " + ".join(source.name for source, _ in parts)
        self.streams = max(source.streams for source, _ in parts)
        self._files: dict[str, tuple[Source, Listed]] = {}
        for source, patterns in parts:
            for entry in source.files():
                if not patterns or any(fnmatch.fnmatch(entry.path, pattern) for pattern in patterns):
                    self._files.setdefault(entry.path, (source, entry))

    def files(self) -> list[Listed]:
        return [entry for _, entry in self._files.values()]

    def small(self, path: str) -> bytes:
        return self._source(path).small(path)

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        return self._source(path).open_range(path, begin, end)

    def _source(self, path: str) -> Source:
        if path not in self._files:
            raise NoSuchCopy(f"there is no {path} in {self.name}")
        return self._files[path][0]


class Renamed:
    """A source whose files have the names that they are to have here."""

    def __init__(self, source: Source, paths: Mapping[str, str]) -> None:
        self._source, self._paths, self.name, self.streams = source, paths, source.name, source.streams

    def files(self) -> list[Listed]:
        by_path = {entry.path: entry for entry in self._source.files()}
        return [Listed(name, by_path[path].size, by_path[path].sha256) for name, path in self._paths.items()]

    def small(self, path: str) -> bytes:
        return self._source.small(self._paths[path])

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        return self._source.open_range(self._paths[path], begin, end)


@dataclass(frozen=True)
class Found:
    """A checkpoint in a foreign place; `paths` maps the names it will have to where they are now."""

    stage: str
    tag: str
    step: int
    paths: Mapping[str, str]

    @property
    def folder(self) -> str:
        return f"{STAGE_FOLDERS[self.stage]}/{self.tag}"

    @property
    def has_tokenizer(self) -> bool:
        return "tokenizer/tokenizer.pkl" in self.paths


def copies(source: Source) -> list[str]:
    """The places of our own copies, each with its manifest and its sums; "" is the source itself.

    Others have files of the manifest's name too, so both must be there.
    """
    folders = {name: {folder for entry in source.files() for folder, _, file in [entry.path.rpartition("/")]
                      if file == name} for name in (MANIFEST, SUMS)}
    return sorted(folders[MANIFEST] & folders[SUMS])


def checkpoints(source: Source, stage: str | None = None, tag: str | None = None) -> list[Found]:
    """Every checkpoint with weights and meta; `stage` and `tag` are used where its place does not say them."""
    names = {entry.path for entry in source.files()}
    groups: dict[tuple[str, int], dict[str, str]] = {}
    for path in sorted(names):
        folder, _, file = path.rpartition("/")
        if match := _FILE.fullmatch(file):
            groups.setdefault((folder, int(match["step"])), {})[file] = path
    found = []
    for (folder, step), paths in groups.items():
        if f"model_{step:06d}.pt" in paths and f"meta_{step:06d}.json" in paths:
            meta = _meta(source, paths[f"meta_{step:06d}.json"])
            where = _place(folder, meta, stage, tag)
            found.append(Found(*where, step, {**paths, **_tokenizer(names, folder)}))
    return found


def _place(folder: str, meta: Mapping[str, Any], stage: str | None, tag: str | None) -> tuple[str, str]:
    """Stage and tag, from the folder's own words if it has any."""
    parts = [part for part in folder.split("/") if part]
    by_depth = f"d{meta['model_config'].get('n_layer', 0)}"
    for index, part in enumerate(parts):
        named = STAGE_OF.get(part) or (part if part in STAGE_FOLDERS else None)
        if named:
            rest = [p for p in parts[index + 1:] if _TAG.fullmatch(p)]
            return stage or named, tag or (rest[0] if rest else by_depth)
    last = parts[-1] if parts and _TAG.fullmatch(parts[-1]) else by_depth
    return stage or _guess_stage(meta), tag or last


def _guess_stage(meta: Mapping[str, Any]) -> str:
    """What each stage alone writes into its meta file."""
    if set(meta) == {"model_config"}:
        return "rl"
    if "dataloader_state_dict" in meta or "loop_state" in meta:
        return "base"
    if "val_loss" in meta or "mmlu_acc" in meta:
        return "sft"
    settings = meta.get("user_config") or {}
    return "base" if "target_param_data_ratio" in settings or "eval_tokens" in settings else "sft"


def _meta(source: Source, path: str) -> dict[str, Any]:
    try:
        meta = json.loads(source.small(path))
        if not isinstance(meta["model_config"], dict):
            raise ValueError("no model_config")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCopy(f"{path} in {source.name} is no meta file of a checkpoint") from error
    return meta


def _tokenizer(names: set[str], folder: str) -> dict[str, str]:
    """The tokenizer nearest to a checkpoint: in its folder, beside it, or above it; never from elsewhere."""
    parts = folder.split("/") if folder else []
    for depth in range(len(parts), -1, -1):
        above = "".join(part + "/" for part in parts[:depth])
        for place in (f"{above}tokenizer/", f"{above}tokenizer/latest/", above):
            if f"{place}tokenizer.pkl" in names:
                return {f"tokenizer/{name}": f"{place}{name}" for name in _TOKENIZER if f"{place}{name}" in names}
    return {}


def manifest_of(source: Source, found: Found, label: str) -> Manifest:
    """Sizes and hashes of a foreign checkpoint: from the listing where it has them, else by reading the file now."""
    listed = {entry.path: entry for entry in source.files()}
    files = {name: stored_of(source, listed[path]) for name, path in found.paths.items()}
    ranks = sum(name.startswith("optim_") for name in files)
    meta = _meta(source, found.paths[f"meta_{found.step:06d}.json"])
    val = meta.get("val_bpb")
    return Manifest(label, CheckpointId(found.folder, found.step), files, ranks,
                    float(val) if isinstance(val, (int, float)) else None)


def stored_of(source: Source, entry: Listed) -> StoredFile:
    """Size and sha256 of one listed file; read now, and compared with the listing, where that has no sha256."""
    if entry.sha256 is not None:
        return StoredFile(entry.size, entry.sha256)
    digest, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % entry.size)
    for chunk in source.open_range(entry.path, 0, entry.size) if entry.size else ():
        digest.update(chunk)
        git.update(chunk)
    if entry.git_sha1 is not None and git.hexdigest() != entry.git_sha1:
        raise DamagedCopy(f"{entry.path} in {source.name} is not what its listing says")
    return StoredFile(entry.size, digest.hexdigest())

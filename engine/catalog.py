"""Which models are there to talk to, told from file names and small JSON files alone.

Looks into a nanochat base directory and into every run below it. Opens no checkpoint and imports no tensor library, so
the console may ask each time it needs to know. What is damaged is listed with its problem, never hidden.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import ConfigError, UnknownName
from engine.model.config import CLASSIC, ERAS, MODERN, GPTConfig, UnsupportedArchitecture, config_from_meta
from engine.model.counts import parameter_counts
from engine.rundir import runs_dir, valid_run_id

DIRECTORIES = {"base": "base_checkpoints", "mid": "mid_checkpoints", "sft": "chatsft_checkpoints",
               "rl": "chatrl_checkpoints"}
SOURCES = tuple(DIRECTORIES)  # from least to most trained

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_FILE = re.compile(r"(?:(model)_([0-9]{6,9})\.pt|(meta|manifest)_([0-9]{6,9})\.json)")
_MAX_JSON = 1 << 20  # bytes; real ones have some thousand
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class ModelInfo:
    """One checkpoint. `path` is its folder; `run_id` is None for models that lie in the base directory itself.

    `verified`: our manifest is there and sizes agree. `problem`: why it cannot be used, None when it can.
    """

    ref: str
    name: str
    source: str
    tag: str
    step: int
    path: Path
    tokenizer_dir: Path
    bytes: int
    n_params: int | None
    config: GPTConfig | None
    created: float
    val_bpb: float | None
    run_id: str | None
    verified: bool
    problem: str | None


def list_models(base: Path) -> list[ModelInfo]:
    """Every checkpoint below a base directory, newest first. What cannot be read, a link or oddly named is no model."""
    found = list(_models_in(base, None))
    for run_id in sorted(filter(valid_run_id, _folders(runs_dir(base)))):
        found += _models_in(runs_dir(base) / run_id / "base", run_id)
    return sorted(found, key=lambda m: (-m.created, m.ref))


_PLAIN = ("ref", "name", "source", "tag", "step", "bytes", "n_params", "created", "val_bpb", "run_id", "problem")


def to_row(model: ModelInfo) -> dict[str, Any]:
    """As it is told to whoever lists another machine's models."""
    return {**{name: getattr(model, name) for name in _PLAIN}, "path": str(model.path),
            "tokenizer": str(model.tokenizer_dir), "config": model.config.to_dict() if model.config else None}


def from_row(row: Any) -> ModelInfo | None:
    """The model that another machine told of; None when it is not told as we tell it."""
    try:
        config = config_from_meta(row["config"]) if row.get("config") else None
        return ModelInfo(**{name: row[name] for name in _PLAIN}, path=Path(row["path"]),
                         tokenizer_dir=Path(row["tokenizer"]), config=config, verified=False)
    except _UNREADABLE:
        return None


def default_model(models: Iterable[ModelInfo]) -> ModelInfo | None:
    """The model to talk to when none is named: of the newest run that got as far as any run did, its most trained one.

    A run that has only its base model yet does not hide the chat model of an earlier one.
    """
    usable = [m for m in models if m.problem is None]
    if not usable:
        return None
    stage = min(max(_rank(m) for m in usable), SOURCES.index("sft"))  # whatever can chat counts alike
    newest = max((m for m in usable if _rank(m) >= stage), key=lambda m: m.created).run_id
    return max((m for m in usable if m.run_id == newest), key=lambda m: (_rank(m), m.created, m.step))


def _rank(model: ModelInfo) -> int:
    return SOURCES.index(model.source)


def find(models: Iterable[ModelInfo], text: str) -> ModelInfo:
    """The model that `text` names: its ref, or a beginning or part that fits no other.

    Where only the step is open, the last one is meant. Raises UnknownName naming what is close, ConfigError what fits.
    """
    known = {m.ref: m for m in models}
    if text in known:
        return known[text]
    for fits in (str.startswith, str.__contains__):
        matches = [m for ref, m in known.items() if text and fits(ref, text)]
        if len({(m.path, m.source) for m in matches}) == 1:
            return max(matches, key=lambda m: m.step)
        if matches:
            raise ConfigError(f"{text!r} fits {len(matches)} models: {_some(m.ref for m in matches)}")
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else f"there are: {_some(known)}" if known else "there are none yet"
    raise UnknownName(f"no model {text!r}; {hint}")


def _some(refs: Iterable[str]) -> str:
    listed = list(refs)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _models_in(base: Path, run_id: str | None) -> Iterator[ModelInfo]:
    """Models of one base directory in nanochat's layout."""
    no_tokenizer = not (base / "tokenizer" / "tokenizer.pkl").is_file()
    for source, directory in DIRECTORIES.items():
        tags = sorted(filter(_TAG.fullmatch, _folders(base / directory)))
        for tag in tags:
            where = f"{source}/{tag}" if run_id is None or len(tags) > 1 else source
            if run_id is not None:  # a run called like a source must not read as one
                where = f"runs/{run_id}/{where}" if run_id in DIRECTORIES else f"{run_id}/{where}"
            place = _Place(where, source, tag, base / directory / tag, base / "tokenizer", run_id)
            folder = _Folder(place.path)
            for step in folder.steps:
                yield _model(place, folder, step, ["there is no tokenizer beside it"] if no_tokenizer else [])


def _folders(path: Path) -> list[str]:
    """Names of real folders in `path`; none when it is not there or not readable."""
    try:
        with os.scandir(path) as entries:
            return [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


@dataclass(frozen=True)
class _Place:
    """What the position of a checkpoint folder says about the models in it."""

    where: str
    source: str
    tag: str
    path: Path
    tokenizer_dir: Path
    run_id: str | None


def _model(place: _Place, folder: _Folder, step: int, problems: list[str]) -> ModelInfo:
    """What is known of the checkpoint at `step`; appends to the problems it has already."""
    meta: dict[str, Any] = {}
    config = None
    if ("model", step) not in folder.names:
        problems.append("its model file is missing")
    try:
        meta = folder.json("meta", step)
        config = config_from_meta(meta["model_config"])
    except _UNREADABLE as error:
        problems.append(_describe(error))
    manifest, problem = folder.manifest(step)
    problems += [problem] if problem else []
    created = _number(manifest.get("created")) or folder.modified(step)
    val_bpb = _number(manifest.get("val_bpb", meta.get("val_bpb")))
    return ModelInfo(
        f"{place.where}@{step}", f"{place.tag} {place.source}", place.source, place.tag, step, place.path,
        place.tokenizer_dir, folder.size("model", step), _n_params(config, meta) if config else None, config, created,
        val_bpb, place.run_id, bool(manifest) and not problems, "; ".join(problems) or None)


class _Folder:
    """The checkpoint files of one tag: their sizes and times, read with one listing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, os.stat_result] = {}
        self.names: dict[tuple[str, int], str] = {}  # ("model", 300) -> model_000300.pt
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    match = _FILE.fullmatch(entry.name)
                    if match and entry.is_file(follow_symlinks=False):
                        self.files[entry.name] = entry.stat(follow_symlinks=False)
                        kind, step = match[1] or match[3], match[2] or match[4]
                        self.names[kind, int(step)] = entry.name
        except OSError:
            self.names.clear()
        self.steps = sorted({step for kind, step in self.names if kind != "manifest"})
        self.ours = any(kind == "manifest" for kind, _ in self.names)

    def size(self, kind: str, step: int) -> int:
        name = self.names.get((kind, step))
        return self.files[name].st_size if name else 0

    def modified(self, step: int) -> float:
        return max(self.files[name].st_mtime for (_, s), name in self.names.items() if s == step)

    def json(self, kind: str, step: int) -> dict[str, Any]:
        """The object in meta_<step>.json or manifest_<step>.json. Raises one of _UNREADABLE."""
        name = self.names.get((kind, step))
        if name is None:
            raise FileNotFoundError(f"its {kind} file is missing")
        if self.files[name].st_size > _MAX_JSON:
            raise ValueError(f"{name} is too large to be one")
        value = json.loads((self.path / name).read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"{name} holds no JSON object")
        return value

    def manifest(self, step: int) -> tuple[dict[str, Any], str | None]:
        """The manifest, empty when there is none, and what is wrong with it or with the files needed for talking."""
        if ("manifest", step) not in self.names:
            return {}, "it was not saved to the end: its manifest is missing" if self.ours else None
        try:
            manifest = self.json("manifest", step)
            for kind in ("model", "meta"):
                name = self.names.get((kind, step))
                if name and manifest["files"][name]["bytes"] != self.files[name].st_size:
                    return manifest, f"{name} has not the size that its manifest says"
        except _UNREADABLE:
            return {}, "its manifest is damaged"
        return manifest, None


def _describe(error: Exception) -> str:
    if isinstance(error, (FileNotFoundError, UnsupportedArchitecture)) and error.args:
        return str(error)
    return f"its meta file is damaged ({type(error).__name__})"


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _n_params(config: GPTConfig, meta: dict[str, Any]) -> int:
    """Parameters, by the architecture that our meta files record; in nanochat's, a window pattern tells the modern."""
    recorded = meta.get("architecture")
    era = recorded.get("era") if isinstance(recorded, dict) else None
    architecture = ERAS.get(str(era), CLASSIC if config.window_pattern is None else MODERN)
    return parameter_counts(config, architecture)["total"]

"""Checkpoints in nanochat's layout, committed so that a crash at any instant leaves the old ones valid and no half one.

    <stage>_checkpoints/<tag>/model_000300.pt  optim_000300_rank0.pt  meta_000300.json  manifest_000300.json

Every file is written under a temporary name, synced and renamed; the manifest with sizes and sha256 comes last, so a
checkpoint exists when its manifest does. Tensors are loaded with `weights_only=True` and only after their hash agreed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.catalog import DIRECTORIES
from engine.context import StageError
from engine.dist import ALONE, World
from engine.model.config import GPTConfig, UnsupportedArchitecture, architecture_of, config_from_meta
from engine.model.gpt import GPT, gpt_from_state
from engine.rundir import sync_dir, write_atomic
from engine.train import manifest
from engine.train.archive import CheckpointError, load_tensors
from engine.train.manifest import (
    Files,
    list_steps,
    newest_valid,
    read_manifest,
    record_evaluation,
    verify,
)

__all__ = [
    "CheckpointError",
    "Saved",
    "find_tag",
    "list_steps",
    "load_model",
    "load_tensors",
    "newest_valid",
    "optimizer_files",
    "read_manifest",
    "read_meta",
    "record_evaluation",
    "resolve",
    "save_checkpoint",
    "verify",
]


@dataclass(frozen=True)
class Saved:
    """What a commit put on disk."""

    folder: Path
    step: int
    files: tuple[str, ...]
    bytes: int
    seconds: float


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    source: str,
    model: Mapping[str, torch.Tensor],
    meta: Mapping[str, Any],
    optimizers: Mapping[int, Any] | None = None,
    tokenizer_sha256: str = "",
    world: World = ALONE,
) -> Saved:
    """Write and commit one checkpoint. `optimizers` maps a rank to its state.

    With several ranks each calls this with its own optimizer state and writes that; rank 0 writes the rest and, when
    all have succeeded, the manifest. Raises StageError on every rank when the disk is full for one.
    """
    begin = time.monotonic()
    parts: dict[str, Any] = {f"model_{step:06d}.pt": dict(model)} if world.rank == 0 else {}
    parts |= {f"optim_{step:06d}_rank{rank}.pt": state for rank, state in (optimizers or {}).items()}
    mine = [*parts, f"meta_{step:06d}.json"] if world.rank == 0 else list(parts)

    def commit() -> Files:
        if world.rank == 0:
            manifest.write(folder, step, source, files, tokenizer_sha256)
        return {}

    try:
        files = _agree(
            folder, step, world, lambda: _write_parts(folder, step, parts, meta if world.rank == 0 else None)
        )
        _agree(folder, step, world, commit)
    except StageError:
        _discard(folder, step, mine)
        raise
    return Saved(folder, step, tuple(files), sum(f["bytes"] for f in files.values()), time.monotonic() - begin)


def _agree(folder: Path, step: int, world: World, write: Callable[[], Files]) -> Files:
    """What all ranks wrote, together; StageError on all of them when one could not."""
    problem: str | None = None
    files: Files = {}
    try:
        files = write()
    except OSError as error:
        _remove_temporaries(folder)
        problem = error.strerror or str(error)
    gathered = world.gather((files, problem))
    if problems := [p for _, p in gathered if p]:
        raise StageError(
            f"could not save the checkpoint of step {step} in {folder}: {problems[0]}; "
            "earlier checkpoints are untouched",
            "free some disk space, then resume",
            "disk",
        )
    return {name: entry for written, _ in gathered for name, entry in written.items()}


def _discard(folder: Path, step: int, names: Iterable[str]) -> None:
    """Give back the room of a checkpoint that was not committed, unless an earlier one of that step was."""
    if not manifest.path_of(folder, step).exists():
        for name in names:
            (folder / name).unlink(missing_ok=True)


def _write_parts(folder: Path, step: int, parts: Mapping[str, Any], meta: Mapping[str, Any] | None) -> Files:
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _write_tensors(folder / name, value) for name, value in parts.items()}
    if meta is not None:
        path = folder / f"meta_{step:06d}.json"
        write_atomic(path, json.dumps(meta, indent=2).encode())
        files[path.name] = manifest.file_entry(path)
    return files


def _write_tensors(path: Path, value: Any) -> dict[str, Any]:
    """torch.save to `path` by temp name, fsync, rename; returns its size and sha256, read back."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            torch.save(value, f)
            f.flush()
            os.fsync(f.fileno())
    except RuntimeError as error:  # torch reports a failed write of its zip writer so
        raise OSError(28, f"disk full while writing {path.name}") from error
    entry = manifest.file_entry(temporary)
    os.replace(temporary, path)
    sync_dir(path.parent)
    return entry


def _remove_temporaries(folder: Path) -> None:
    for leftover in folder.glob(f".*.{os.getpid()}.tmp"):
        leftover.unlink(missing_ok=True)


def optimizer_files(folder: Path, step: int) -> list[Path]:
    """The optimizer state of every rank, in order: `optim_S_rankR.pt`, or nanochat's older `optim_S.pt` of one rank.

    Raises CheckpointError when there is none, or when one between others is missing.
    """
    pattern = re.compile(rf"optim_{step:06d}_rank(\d{{1,5}})\.pt")
    listed = read_manifest(folder, step).get("files")
    names = listed if listed else [entry.name for entry in folder.glob("optim_*")]
    found = {int(m[1]): folder / name for name in names if (m := pattern.fullmatch(name))}
    single = folder / f"optim_{step:06d}.pt"
    if not found and single.is_file():
        return [single]
    if not found:
        raise CheckpointError(
            f"{folder} has no optimizer state of step {step}", "start from its weights without --resume", "checkpoint"
        )
    if missing := [rank for rank in range(max(found) + 1) if rank not in found]:
        raise CheckpointError(
            f"{folder} lacks the optimizer state of rank {missing[0]} at step {step}; {len(found)} others are there",
            "restore the file, or start from the weights without --resume",
            "checkpoint",
        )
    return [found[rank] for rank in sorted(found)]


def find_tag(directory: Path, tag: str | None = None) -> Path:
    """The folder of `tag`, or as nanochat guesses: the deepest d<number>, else the most recently changed."""
    if tag:
        if not (directory / tag).is_dir():
            raise CheckpointError(f"no checkpoints called {tag!r} in {directory}", "", "checkpoint")
        return directory / tag
    folders = [f for f in directory.iterdir() if f.is_dir()] if directory.is_dir() else []
    if not folders:
        raise CheckpointError(f"no checkpoints in {directory}: run the stage that makes them first", "", "checkpoint")
    depths = [(int(m[1]), f) for f in folders if (m := re.match(r"d(\d+)", f.name))]
    return max(depths)[1] if depths else max(folders, key=lambda f: f.stat().st_mtime)


def resolve(base: Path, source: str, tag: str | None = None, step: int | None = None) -> tuple[Path, int]:
    """Folder and step of a stage's checkpoint; the newest valid one unless `step` says which."""
    folder = find_tag(base / DIRECTORIES[source], tag)
    steps = list_steps(folder)
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} has no checkpoint of step {step}", f"it has {steps}", "checkpoint")
    chosen = step if step is not None else (newest_valid(folder) or (steps[-1] if steps else None))
    if chosen is None:
        lone = sorted(path.name for path in folder.glob("model_*.pt"))
        why = f": {lone[-1]} has neither a manifest nor a meta file beside it" if lone else ""
        raise CheckpointError(f"{folder} holds no complete checkpoint{why}", "run the stage again", "checkpoint")
    return folder, chosen


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    path = folder / f"meta_{step:06d}.json"
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable ({error})", "use another checkpoint", "checkpoint") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("model_config"), dict):
        raise CheckpointError(f"{path}: has no model_config", "use another checkpoint", "checkpoint")
    return meta


def load_model(
    folder: Path,
    step: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    check_hash: bool = True,
    mapped: bool = False,
) -> tuple[GPT, dict[str, Any]]:
    """A model in evaluation mode, and its meta. Raises CheckpointError naming file, key and shape that do not fit.

    `mapped` leaves float32 weights in the file until they are looked at.
    """
    if check_hash:
        verify(folder, step, optimizer=False)
    meta = read_meta(folder, step)
    path = folder / f"model_{step:06d}.pt"
    state = load_tensors(path, mapped=mapped)
    try:
        state = {str(k).removeprefix("_orig_mod."): v for k, v in _tensor_items(state)}
        config = _config(folder / f"meta_{step:06d}.json", meta["model_config"])
        architecture = architecture_of(state, config, meta.get("architecture"))
        model = gpt_from_state(config, architecture, state, dtype=dtype, device=device)
    except (UnsupportedArchitecture, ValueError, TypeError) as error:
        advice = "use a checkpoint that nanochat or llmconsole wrote"
        raise CheckpointError(f"{path}: {error}", advice, "checkpoint") from error
    return model.eval(), meta


def _config(path: Path, values: Mapping[str, Any]) -> GPTConfig:
    try:
        return config_from_meta(values)
    except (UnsupportedArchitecture, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: model_config: {error}", "use another checkpoint", "checkpoint") from error


def _tensor_items(state: object) -> Iterable[tuple[str, torch.Tensor]]:
    if not isinstance(state, Mapping):
        raise ValueError(f"expected a dictionary of tensors, found {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{key}: expected a tensor, found {type(value).__name__}")
    return state.items()

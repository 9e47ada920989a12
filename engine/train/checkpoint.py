"""Checkpoints in nanochat's layout, committed so that a crash at any instant leaves the old ones valid and no half one.

    <stage>_checkpoints/<tag>/model_000300.pt  optim_000300_rank0.pt  meta_000300.json  manifest_000300.json

Every file is written under a temporary name, synced and renamed; the manifest with sizes and sha256 comes last, so a
checkpoint exists when its manifest does. Tensors are loaded with `weights_only=True` and only after their hash agreed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.catalog import DIRECTORIES
from engine.context import StageError
from engine.model.config import UnsupportedArchitecture, architecture_of, config_from_meta
from engine.model.gpt import GPT, gpt_from_state
from engine.rundir import sync_dir, write_atomic

_MANIFEST = re.compile(r"manifest_(\d{6,9})\.json")
_MODEL = re.compile(r"model_(\d{6,9})\.pt")


class CheckpointError(StageError):
    """No checkpoint, or one that cannot be trusted or read; the text names the file and what to do."""


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
) -> Saved:
    """Write and commit one checkpoint. `optimizers` maps rank to its state. Raises StageError when the disk is full."""
    begin = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {f"model_{step:06d}.pt": dict(model)}
    for rank, state in (optimizers or {}).items():
        parts[f"optim_{step:06d}_rank{rank}.pt"] = state
    try:
        files = {name: _write_tensors(folder / name, value) for name, value in parts.items()}
        name = f"meta_{step:06d}.json"
        body = json.dumps(meta, indent=2).encode()
        write_atomic(folder / name, body)
        files[name] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        manifest = {
            "v": 1,
            "step": step,
            "source": source,
            "files": files,
            "tokenizer_sha256": tokenizer_sha256,
            "created": time.time(),
        }
        write_atomic(folder / f"manifest_{step:06d}.json", json.dumps(manifest, indent=2).encode())
    except OSError as error:
        _remove_temporaries(folder)
        raise StageError(
            f"could not save the checkpoint of step {step} in {folder}: {error.strerror or error}; "
            "earlier checkpoints are untouched",
            "free some disk space, then resume",
            "disk",
        ) from error
    return Saved(folder, step, tuple(files), sum(f["bytes"] for f in files.values()), time.monotonic() - begin)


def record_evaluation(folder: Path, step: int, val_bpb: float) -> None:
    """Add a validation result to a committed checkpoint's manifest; it was saved before it was evaluated."""
    path = folder / f"manifest_{step:06d}.json"
    manifest = json.loads(path.read_bytes())
    write_atomic(path, json.dumps({**manifest, "val_bpb": val_bpb}, indent=2).encode())


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
    entry = {"bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
    os.replace(temporary, path)
    sync_dir(path.parent)
    return entry


def _remove_temporaries(folder: Path) -> None:
    for leftover in folder.glob(f".*.{os.getpid()}.tmp"):
        leftover.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def list_steps(folder: Path) -> list[int]:
    """Steps that have a manifest, or that nanochat wrote without one; ascending. A missing folder has none."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    ours = {int(m[1]) for name in names if (m := _MANIFEST.fullmatch(name))}
    foreign = {int(m[1]) for name in names if (m := _MODEL.fullmatch(name))} if not ours else set()
    return sorted(ours | foreign)


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """The manifest; {} where nanochat wrote the checkpoint without one. Raises CheckpointError when it is damaged."""
    path = folder / f"manifest_{step:06d}.json"
    try:
        manifest = json.loads(path.read_bytes())
        files = manifest["files"]
        if f"model_{step:06d}.pt" not in files or not all(
            isinstance(e["bytes"], int) and isinstance(e["sha256"], str) and "/" not in name
            for name, e in files.items()
        ):
            raise ValueError("it lists no model, or no sizes and hashes")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", "use another checkpoint", "checkpoint") from error
    return manifest


def verify(folder: Path, step: int, *, optimizer: bool = True) -> None:
    """Compare every file with the manifest, if there is one. Raises CheckpointError naming the first that differs.

    `optimizer=False` passes over optimizer state, which only a resume reads: it may be gone, and it is large.
    """
    for name, entry in read_manifest(folder, step).get("files", {}).items():
        if name.startswith("optim_") and not optimizer:
            continue
        file, size, sha256 = folder / name, entry["bytes"], entry["sha256"]
        if not file.is_file() or file.stat().st_size != size or file_sha256(file) != sha256:
            raise CheckpointError(
                f"{file} does not match its manifest: it is missing, cut off or changed",
                "use an earlier checkpoint or restore this one from a backup",
                "checkpoint",
            )


def newest_valid(folder: Path) -> int | None:
    """The largest step whose files all match its manifest; None when there is none."""
    for step in reversed(list_steps(folder)):
        if not (folder / f"manifest_{step:06d}.json").exists():
            continue
        try:
            verify(folder, step)
        except CheckpointError:
            continue
        return step
    return None


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
        raise CheckpointError(f"{folder} holds no complete checkpoint", "run the stage again", "checkpoint")
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


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """A file of tensors and plain containers. Raises CheckpointError when it is damaged or holds anything else."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", "use another checkpoint", "checkpoint") from error
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read: {reason}", "it is damaged or not a checkpoint", "checkpoint"
        ) from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # by name: nothing here imports pickle
            raise
        raise CheckpointError(
            f"{path} holds more than tensors and was not loaded", "use a trusted checkpoint", "checkpoint"
        ) from error


def load_model(
    folder: Path,
    step: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    check_hash: bool = True,
) -> tuple[GPT, dict[str, Any]]:
    """A model in evaluation mode, and its meta. Raises CheckpointError naming file, key and shape that do not fit."""
    if check_hash:
        verify(folder, step, optimizer=False)
    meta = read_meta(folder, step)
    path = folder / f"model_{step:06d}.pt"
    state = load_tensors(path)
    try:
        state = {str(k).removeprefix("_orig_mod."): v for k, v in _tensor_items(state)}
        config = config_from_meta(meta["model_config"])
        architecture = architecture_of(state, config, meta.get("architecture"))
        model = gpt_from_state(config, architecture, state, dtype=dtype, device=device)
    except (UnsupportedArchitecture, ValueError, TypeError) as error:
        advice = "use a checkpoint that nanochat or llmconsole wrote"
        raise CheckpointError(f"{path}: {error}", advice, "checkpoint") from error
    return model.eval(), meta


def _tensor_items(state: object) -> Iterable[tuple[str, torch.Tensor]]:
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError("not a dictionary of tensors")
    return state.items()

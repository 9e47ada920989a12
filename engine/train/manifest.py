"""The manifest of a checkpoint: what belongs to it, with sizes and sha256. Written last: it is there when all is.

    {"v": 1, "step", "source", "files": {name: {"bytes", "sha256"}}, "tokenizer_sha256", "created", "val_bpb"?, "check"}

`check` is the sha256 of all the rest, so that damage to the manifest itself is noticed too.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from engine.rundir import file_sha256, write_atomic
from engine.train.archive import CheckpointError

_MANIFEST = re.compile(r"manifest_(\d{6,9})\.json")
_MODEL = re.compile(r"model_(\d{6,9})\.pt")
_KEYS = {"v", "step", "source", "files", "tokenizer_sha256", "created", "val_bpb", "check"}

Files = dict[str, dict[str, Any]]


def path_of(folder: Path, step: int) -> Path:
    return folder / f"manifest_{step:06d}.json"


def write(folder: Path, step: int, source: str, files: Files, tokenizer_sha256: str) -> None:
    """Commit a checkpoint whose files are all on disk."""
    body = {"v": 1, "step": step, "source": source, "files": files, "tokenizer_sha256": tokenizer_sha256}
    _write(folder, step, {**body, "created": time.time()})


def record_evaluation(folder: Path, step: int, val_bpb: float) -> None:
    """Add a validation result to a committed checkpoint's manifest; it was saved before it was evaluated."""
    _write(folder, step, {**read_manifest(folder, step), "val_bpb": val_bpb})


def _write(folder: Path, step: int, body: dict[str, Any]) -> None:
    body = {k: v for k, v in body.items() if k != "check"}
    write_atomic(path_of(folder, step), json.dumps({**body, "check": _check(body)}, indent=2).encode())


def _check(body: dict[str, Any]) -> str:
    rest = {k: v for k, v in body.items() if k != "check"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """The manifest; {} where nanochat wrote the checkpoint without one. Raises CheckpointError when it is damaged."""
    path = path_of(folder, step)
    try:
        manifest = json.loads(path.read_bytes())
        if problem := _problem(manifest, step):
            raise ValueError(problem)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", "use another checkpoint", "checkpoint") from error
    return dict(manifest)


def _problem(manifest: Any, step: int) -> str:
    files = manifest["files"]
    if f"model_{step:06d}.pt" not in files or not all(
        isinstance(e["bytes"], int) and isinstance(e["sha256"], str) and "/" not in name for name, e in files.items()
    ):
        return "it lists no model, or no sizes and hashes"
    if manifest.get("step", step) != step:
        return f"it is that of step {manifest['step']}"
    if "check" not in manifest:  # older ones have none; one whose key was changed has a key that none ever had
        return "" if set(manifest) <= _KEYS else "its check sum is missing"
    return "" if manifest["check"] == _check(manifest) else "it does not match its check sum"


def file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def list_steps(folder: Path) -> list[int]:
    """Steps that have a manifest or, where none has one, those that nanochat wrote: a model with its meta file;
    ascending. A missing folder has none."""
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    ours = {int(m[1]) for name in names if (m := _MANIFEST.fullmatch(name))}
    foreign = {int(m[1]) for name in names if (m := _MODEL.fullmatch(name)) and f"meta_{m[1]}.json" in names}
    return sorted(ours or foreign)


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
        if not path_of(folder, step).exists():
            continue
        try:
            verify(folder, step)
        except CheckpointError:
            continue
        return step
    return None

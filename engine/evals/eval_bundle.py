"""The evaluation bundle on disk: 22 tasks, their items and what guessing scores. Fetched once as one zip file.

    <base>/eval_bundle/core.yaml  eval_data/...jsonl  eval_meta_data.csv
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.context import StageError
from engine.data.download import explained, open_line
from engine.evals.icl import KINDS, IclTask
from engine.rundir import shared_base

FOLDER = "eval_bundle"
URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
URL_VARIABLE = "LLMCONSOLE_EVAL_BUNDLE_URL"
_MAX_BYTES = 4 << 30  # unpacked; the real one has about half a gigabyte


@dataclass(frozen=True)
class CoreTask:
    """A task of the bundle, and the percentage that guessing scores in it."""

    task: IclTask
    random_baseline: float


def find_bundle(base: Path, given: str | None = None, log: Callable[[str], object] = print) -> Path:
    """The bundle's folder: the one given, the one on disk, or fetched now. Raises StageError saying how to get it."""
    folder = Path(given).expanduser() if given else shared_base(base) / FOLDER
    if (folder / "core.yaml").is_file():
        return folder
    if given:
        raise StageError(f"{folder} holds no core.yaml", "name the unpacked eval_bundle folder", "eval-bundle")
    _fetch(folder, log)
    return folder


def _fetch(folder: Path, log: Callable[[str], object]) -> None:
    """Download and unpack beside `folder`, then move it there; one process at a time."""
    url = os.environ.get(URL_VARIABLE) or URL
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{FOLDER}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "core.yaml").is_file():
            return
        log(f"fetching the eval bundle (about 160 MB) from {url}")
        archive = folder.parent / f".{FOLDER}.zip"
        with explained(folder, lambda cause: _missing(folder, cause)), open_line(log) as line:
            line.fetch(url, archive, _no_zip)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{FOLDER}.") as place:
                unpacked = _unpack(archive, Path(place) / "unpacked")
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(unpacked, folder)
            archive.unlink()


def _no_zip(path: Path) -> str | None:
    return None if zipfile.is_zipfile(path) else "what arrived is no zip file"


def _missing(folder: Path, cause: str) -> StageError:
    return StageError(f"CORE needs the eval bundle, which is not at {folder} and cannot be fetched: {cause}",
                      f"unpack eval_bundle.zip to {folder}, or leave CORE out: --eval=bpb,sample", "eval-bundle")


def _unpack(archive: Path, target: Path) -> Path:
    """The folder that holds core.yaml. Python's zipfile keeps names inside the target; sizes are checked here."""
    with zipfile.ZipFile(archive) as bundle:
        if sum(entry.file_size for entry in bundle.infolist()) > _MAX_BYTES:
            raise StageError("the eval bundle unpacks to more than 4 GiB and was refused", "look at its source",
                             "eval-bundle")
        bundle.extractall(target)
    found = [path.parent for path in sorted(target.rglob("core.yaml"))]
    if not found:
        raise StageError("the eval bundle holds no core.yaml", "look at its source", "eval-bundle")
    return found[0]


def read_tasks(folder: Path) -> list[CoreTask]:
    """Every task of a bundle, in its order. Raises StageError naming what is damaged."""
    import yaml

    path = folder / "core.yaml"
    try:
        listed = yaml.safe_load(path.read_text())["icl_tasks"]
        guesses = _baselines(folder / "eval_meta_data.csv")
        return [_task(folder, entry, guesses) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, yaml.YAMLError) as error:
        raise StageError(f"the eval bundle at {folder} cannot be read: {type(error).__name__}: {error}",
                         "remove it, so that it is fetched again", "eval-bundle") from error


def _baselines(path: Path) -> dict[str, float]:
    with open(path, newline="") as f:
        return {row["Eval Task"]: float(row["Random baseline"]) for row in csv.DictReader(f)}


def _task(folder: Path, entry: dict[str, Any], guesses: dict[str, float]) -> CoreTask:
    label, kind = str(entry["label"]), str(entry["icl_task_type"])
    if kind not in KINDS:
        raise ValueError(f"{label} is of the unknown type {kind!r}")
    path = folder / "eval_data" / entry["dataset_uri"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{label} points outside of the bundle: {entry['dataset_uri']}")
    with open(path, encoding="utf-8") as f:
        items = [json.loads(line) for line in f if line.strip()]
    if not items:
        raise ValueError(f"{label} has no items")
    delimiter = entry.get("continuation_delimiter", " ")
    return CoreTask(IclTask(label, kind, int(entry["num_fewshot"][0]), delimiter, items), guesses[label])

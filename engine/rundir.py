"""A run is a folder: where each of its files is, and how a file appears there whole or not at all.

    <base>/runs/<run id>/
        run.json            what was asked: recipe resolved to stages and settings, written once
        events.jsonl        what happened (engine.events)
        logs/NN-stage.log   what each stage printed
        done/NN-stage.json  a stage that finished, so that a resume skips it
        job/                identity, lock and exit record of the supervisor (remote.job)
        base/               what the stages made, in nanochat's layout: point NANOCHAT_BASE_DIR here to use it there

`<base>` is $NANOCHAT_BASE_DIR, else ~/.cache/nanochat as nanochat has it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = "NANOCHAT_BASE_DIR"
DISK_ADVICE = "what was saved is untouched: free some disk space, then resume"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def base_dir() -> Path:
    """Where artifacts live on this machine. Reads the environment, creates nothing."""
    return Path(os.environ.get(BASE) or Path.home() / ".cache" / "nanochat").expanduser().absolute()


@dataclass(frozen=True)
class RunDir:
    """Names inside one run folder; building one touches nothing."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def done(self) -> Path:
        return self.path / "done"

    @property
    def job(self) -> Path:
        return self.path / "job"

    @property
    def base(self) -> Path:
        return self.path / "base"

    def stage_log(self, stage_id: str) -> Path:
        return self.logs / f"{stage_id}.log"

    def done_mark(self, stage_id: str) -> Path:
        return self.done / f"{stage_id}.json"

    def read(self) -> dict[str, Any]:
        """run.json as a dict. Raises FileNotFoundError or ValueError when there is none or it is damaged."""
        return json.loads(self.run_json.read_bytes())


def runs_dir(base: Path) -> Path:
    return base / "runs"


def shared_base(base: Path) -> Path:
    """Where downloads lie that several runs use: the base directory around a run's own, else `base` itself."""
    inside = base.name == "base" and base.parent.parent.name == "runs"
    return base.parents[2] if inside else base


def new_run_id(recipe: str, now: float | None = None) -> str:
    """A readable id such as tiny-20261121-093005; the caller makes it unique by creating the folder exclusively."""
    return f"{recipe}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"


def valid_run_id(run_id: str) -> bool:
    """Run ids become folder names and command line words: letters, digits, '.', '_', '-', at most 80."""
    return bool(_RUN_ID.fullmatch(run_id))


def create(base: Path, run_id: str, description: dict[str, Any]) -> RunDir:
    """Make a new run folder with its run.json. Raises FileExistsError when the id is taken."""
    run = RunDir(runs_dir(base) / run_id)
    run.path.mkdir(parents=True)
    for folder in (run.logs, run.done, run.job, run.base):
        folder.mkdir()
    write_atomic(run.run_json, json.dumps(description, indent=2).encode() + b"\n")
    return run


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any instant leaves the old content or the new, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def disk_full(error: BaseException) -> bool:
    """Whether the disk, or this user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, read in pieces; large ones, so that other threads' Python seldom holds it up."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(8 << 20))
    with open(path, "rb", buffering=0) as f:
        while count := f.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def sync_dir(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

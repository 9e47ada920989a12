"""What a running stage knows of the world: where to read and write, whom to tell, and whether to stop.

A stage is `run(config, context)`. It does not know if a person, the supervisor or torchrun started it, nor where.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import wandb_mirror
from engine.events import EventWriter
from engine.rundir import base_dir, write_atomic
from engine.wandb_mirror import MirroredWriter

EXIT_STOPPED = 75  # the stage was asked to stop, saved what it had, and can be resumed (EX_TEMPFAIL)

_PR_SET_PDEATHSIG = 1

RUN_DIR, STAGE_ID, ATTEMPT = "LLMCONSOLE_RUN_DIR", "LLMCONSOLE_STAGE_ID", "LLMCONSOLE_ATTEMPT"


class StageError(RuntimeError):
    """The stage cannot go on for a reason that a person can act on; `next` says how. Printed without a traceback."""

    def __init__(self, text: str, next: str = "", code: str = "stage") -> None:
        super().__init__(text)
        self.next, self.code = next, code


class Stopped(Exception):
    """The stage was asked to stop and has saved; the process exits with EXIT_STOPPED."""


@dataclass
class StageContext:
    """Handed to every stage. `rank` 0 alone writes events, reports and logs."""

    base_dir: Path
    events: EventWriter
    stage: str
    run_dir: Path | None = None
    rank: int = 0
    stop_requested: bool = False
    _last_progress: float = field(default=0.0, repr=False)

    def log(self, text: str) -> None:
        """One line to the stage's log (stdout), from rank 0 only, at once."""
        if self.rank == 0:
            print(text, flush=True)

    def progress(self, done: float, total: float, unit: str, eta_s: float | None = None) -> None:
        """Tell how far the stage is; at most four events a second, the last one always."""
        now = time.monotonic()
        if self.rank == 0 and (done >= total or now - self._last_progress >= 0.25):
            self._last_progress = now
            self.events.progress(done, total, unit, eta_s)

    def checkpoint_stop(self) -> None:
        """Raise Stopped if someone asked to stop; call it where nothing would be lost."""
        if self.stop_requested:
            raise Stopped

    def report(self, title: str, *sections: Mapping[str, Any]) -> None:
        """Store this stage's part of the report card: `report/<slug>.json`, which the report stage renders."""
        if self.rank != 0:
            return
        folder = self.base_dir / "report"
        folder.mkdir(parents=True, exist_ok=True)
        merged = {key: value for section in sections for key, value in section.items()}
        body = {"title": title, "time": time.time(), "data": merged}
        write_atomic(folder / f"{slug(title)}.json", json.dumps(body, indent=2).encode())


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def from_environment(stage: str, mirror: str | None = None) -> StageContext:
    """The context that the supervisor described in the environment; by hand, events go nowhere.

    `mirror` names the run on Weights & Biases that gets a training stage's numbers too; None: the environment may.
    """
    rank = int(os.environ.get("RANK", 0))
    run_dir = Path(os.environ[RUN_DIR]) if os.environ.get(RUN_DIR) else None
    stage_id = os.environ.get(STAGE_ID) or stage
    path = run_dir / "events.jsonl" if run_dir and rank == 0 else None
    run, attempt = run_dir.name if run_dir else "", int(os.environ.get(ATTEMPT, 1))
    name = wandb_mirror.requested(mirror) if rank == 0 else None
    if name and stage in wandb_mirror.PROJECTS:
        events: EventWriter = MirroredWriter(name, stage, path, run=run, attempt=attempt, stage_id=stage_id)
    else:
        events = EventWriter(path, run=run, attempt=attempt, stage=stage_id)
    return StageContext(base_dir(), events, stage, run_dir, rank)


def obey_sigterm(context: StageContext) -> None:
    """SIGTERM and SIGINT mean: finish the step, save, exit. A second SIGINT ends the process at once.

    One of torchrun's processes ends when torchrun is killed: nothing would tell it to stop before the next attempt.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def ask(signum: int, frame: object) -> None:
        if context.stop_requested and signum == signal.SIGINT:
            sys.exit(130)
        context.stop_requested = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)


StageFunction = Callable[[Any, StageContext], None]

"""From run.json to command lines: which stages a run has, and the exact argv and environment of each.

Pure functions, so that a test compares them word for word. Nothing is started here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import stage as stages
from engine.config import ConfigError, from_mapping, to_argv
from engine.context import ATTEMPT, RUN_DIR, STAGE_ID
from engine.rundir import RunDir

TORCHRUN = "torch.distributed.run"
SAVE_WITHIN_S = 600  # what torchrun gives its processes to save after SIGTERM; by itself it kills them after 30 s


@dataclass(frozen=True)
class PlannedStage:
    """One row of run.json. `id` such as "04-base_train" names its log and its done mark; `index` counts from 1."""

    id: str
    stage: str
    title: str
    args: dict[str, Any]
    index: int


def planned(description: Mapping[str, Any]) -> list[PlannedStage]:
    """The stages of a run in order. Raises ConfigError when run.json is not one of ours."""
    try:
        return [PlannedStage(str(row["id"]), str(row["stage"]), str(row["title"]), dict(row["args"]), index)
                for index, row in enumerate(description["stages"], 1)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"run.json is damaged: {type(error).__name__}: {error}") from None


def stage_argv(step: PlannedStage, gpus: int = 0, python: Sequence[str] = (sys.executable,)) -> list[str]:
    """The command of one stage; under torchrun when it can use several GPUs. Raises ConfigError.

    A resumable stage is always told to resume: without a checkpoint of its own it starts at the beginning.
    """
    spec = stages.find(step.stage)
    args = {**step.args, "resume": True} if spec.resumable else step.args
    config: Any = from_mapping(spec.config, args)
    prefix = torchrun_argv(gpus, python) if spec.parallel and config.device_type in ("auto", "cuda") else list(python)
    return [*prefix, "-m", "engine", spec.name, *to_argv(config)]


def torchrun_argv(gpus: int, python: Sequence[str]) -> list[str]:
    """Python itself for at most one GPU, else torchrun with one process per GPU of this machine."""
    if gpus < 2:
        return list(python)
    return [*python, "-m", TORCHRUN, "--standalone", f"--nproc_per_node={gpus}"]


def stage_env(run: RunDir, step: PlannedStage, attempt: int) -> dict[str, str]:
    """What a stage needs in its environment, beside what the supervisor itself has there."""
    return {"NANOCHAT_BASE_DIR": str(run.base), RUN_DIR: str(run.path), STAGE_ID: step.id, ATTEMPT: str(attempt),
            "PYTHONUNBUFFERED": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVE_WITHIN_S)}

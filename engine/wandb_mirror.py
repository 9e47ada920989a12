"""A copy of a training stage's numbers on Weights & Biases, for who asks for it: --run=NAME as with nanochat, or
WANDB_RUN=NAME for every stage that follows.

The event stream stays the record: the mirror may be missing, offline or broken, and training goes on with one warning.
The key is the library's own affair (WANDB_API_KEY or its login); it never passes through here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.events import EventWriter

VARIABLE, OFF = "WANDB_RUN", ("", "dummy")  # nanochat's word for no run
PROJECTS = {"base_train": "nanochat", "mid_train": "nanochat-mid", "chat_sft": "nanochat-sft",
            "chat_rl": "nanochat-rl"}
_METRICS = {"smooth_loss": "train/loss", "lrm": "train/lrm", "dt": "train/dt", "tok_per_sec": "train/tok_per_sec",
            "mfu": "train/mfu", "grad_norm": "train/grad_norm", "train_time": "total_training_time",
            "tokens": "total_training_tokens", "reward": "reward", "sequence_length": "sequence_length"}
_EVALS = {"val_bpb": "val/bpb"}


def requested(named: str | None = None) -> str | None:
    """The name of the run to mirror to, None when nobody asked: what --run says, else the environment."""
    name = (os.environ.get(VARIABLE, "") if named is None else named).strip()
    return None if name in OFF else name


def fields(kind: str, data: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    """An event's numbers under nanochat's names; {} for an event that is not mirrored."""
    if kind == "metric":
        named = {_METRICS[k]: v for k, v in data.items() if k in _METRICS}
        if "smooth_loss" not in data and "loss" in data:
            named["train/loss"] = data["loss"]
    elif kind == "eval":
        named = {_EVALS.get(k, k.replace("chat/", "chatcore/")): v for k, v in data.items()}
    else:
        return {}
    return {"step": step, **named} if named else {}


class MirroredWriter(EventWriter):
    """Writes the events of a training stage as ever and mirrors its numbers to the run `name`, from the first on."""

    def __init__(self, name: str, stage: str, path: Path | None, *, run: str, attempt: int, stage_id: str) -> None:
        super().__init__(path, run=run, attempt=attempt, stage=stage_id)
        self._name = name
        self._project: str | None = PROJECTS[stage]  # None after the mirror broke
        self._mirror: Any = None

    def emit(self, kind: str, data: Mapping[str, Any], *, step: int | None = None, stage: str | None = None) -> int:
        number = super().emit(kind, data, step=step, stage=stage)
        if self._project and (kind == "config" or fields(kind, data, step)):
            try:
                self._copy(kind, data, step)
            except Exception as error:  # noqa: BLE001 - a foreign library and its network must not end a training
                self._project = None
                told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                super().emit("alert", {"level": "warning", "code": "wandb", "text": f"no more mirrored to W&B: {told}",
                                       "next": "the run's own events are complete; for W&B: uv sync --extra wandb, "
                                               "and WANDB_API_KEY"})
        return number

    def _copy(self, kind: str, data: Mapping[str, Any], step: int | None) -> None:
        if self._mirror is None:
            self._mirror = self._begin()
        if kind == "config":
            self._mirror.config.update(dict(data), allow_val_change=True)
        else:
            self._mirror.log(fields(kind, data, step))

    def _begin(self) -> Any:
        """A run of the library; the same one again when a stage of a run folder is resumed."""
        library: Any = importlib.import_module("wandb")  # an optional extra
        ours = f"{self.run}-{self.stage}" if self.run else None
        return library.init(project=self._project, name=self._name, id=ours, resume="allow" if ours else None)

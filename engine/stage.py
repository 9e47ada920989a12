"""The stage table: every step of the pipeline with its typed settings, as data that costs nothing to import.

Names, flags and defaults are nanochat's (seed era), so its recipes read the same here. The code of a stage is named by
a dotted string and imported only inside the stage's own process.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from engine.config import ConfigError, nearest
from engine.context import StageFunction
from engine.settings.data import Dataset, TokEval, TokTrain
from engine.settings.evaluation import BaseEval, ChatEval, Report
from engine.settings.rl import ChatRl
from engine.settings.safekeeping import Backup
from engine.settings.training import BaseTrain, ChatSft, MidTrain


@dataclass(frozen=True)
class StageSpec:
    """One row of the table. `entry` is 'module:function'; the function is called with (config, context)."""

    name: str
    title: str
    config: type
    entry: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    resumable: bool = False  # takes --resume
    parallel: bool = False  # runs under torchrun when there are several GPUs

    @property
    def summary(self) -> str:
        return (self.config.__doc__ or "").strip().splitlines()[0]

    def load(self) -> StageFunction:
        module, _, function = self.entry.partition(":")
        return getattr(importlib.import_module(module), function)


_TABLE = (
    StageSpec("dataset", "Data", Dataset, "engine.stages.dataset:run", (), ("base_data/", "conversations/")),
    StageSpec("tok_train", "Tokenizer", TokTrain, "engine.stages.tok_train:run", ("base_data/",), ("tokenizer/",)),
    StageSpec("tok_eval", "Tokenizer eval", TokEval, "engine.stages.tok_eval:run", ("tokenizer/", "base_data/"), ()),
    StageSpec(
        "base_train",
        "Base",
        BaseTrain,
        "engine.stages.base_train:run",
        ("tokenizer/", "base_data/"),
        ("base_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec(
        "base_eval",
        "Base eval",
        BaseEval,
        "engine.stages.base_eval:run",
        ("base_checkpoints/", "base_data/", "eval_bundle/"),
        ("base_eval/",),
        parallel=True,
    ),
    StageSpec(
        "mid_train",
        "Mid",
        MidTrain,
        "engine.stages.mid_train:run",
        ("base_checkpoints/", "conversations/"),
        ("mid_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec(
        "chat_sft",
        "SFT",
        ChatSft,
        "engine.stages.chat_sft:run",
        ("mid_checkpoints/", "conversations/"),
        ("chatsft_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec(
        "chat_eval",
        "Chat eval",
        ChatEval,
        "engine.stages.chat_eval:run",
        ("chatsft_checkpoints/", "conversations/", "task_data/"),
        (),
        parallel=True,
    ),
    StageSpec(
        "chat_rl",
        "RL",
        ChatRl,
        "engine.stages.chat_rl:run",
        ("chatsft_checkpoints/", "task_data/"),
        ("chatrl_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec("backup", "Backup", Backup, "engine.stages.backup:run", (), ("receipts/",)),
    StageSpec("report", "Report", Report, "engine.stages.report:run", ("report/",), ("report/report.md",)),
)
STAGES: dict[str, StageSpec] = {spec.name: spec for spec in _TABLE}


def find(name: str) -> StageSpec:
    """The stage called `name`. Raises ConfigError with the nearest name."""
    key = name.replace("-", "_")
    if key not in STAGES:
        raise ConfigError(f"unknown stage {name!r}{nearest(key, list(STAGES))}")
    return STAGES[key]

"""What a training stage holds before its first step: its device, the ranks together, tokenizer, model and settings.

It refuses to know how training goes on from there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from engine.config import ConfigError
from engine.context import StageContext, StageError
from engine.device import Device, choose_device
from engine.dist import ALONE, World, joined
from engine.model import fp8
from engine.model.gpt import GPT
from engine.settings.training import Training
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import TokenizerError
from engine.train import resume
from engine.train.cpu_memory import keep_freed_memory
from engine.train.loop import Schedule


@dataclass
class Workbench:
    """What a training stage holds before its first step. `start` is the meta of the checkpoint it resumes, if any;
    `parent` the folder and step of the checkpoint it starts from, if any."""

    config: Training
    context: StageContext
    source: str
    device: Device
    tokenizer: Tokenizer
    model: GPT
    folder: Path
    start: dict[str, Any] | None = None
    world: World = field(default_factory=lambda: ALONE)
    parent: tuple[Path, int] | None = None

    @property
    def data_start(self) -> dict[str, Any] | None:
        """Position of the data stream to go on from."""
        packing = getattr(self.config, "packing", None)
        return resume.data_position(self.start, self.world, packing) if self.start else None

    def rows(self, schedule: Schedule) -> int:
        """Sequences per forward pass of this rank."""
        per_pass = schedule.tokens_per_step // (schedule.accumulation * self.world.size)
        return max(1, per_pass // self.config.max_seq_len)


@contextmanager
def open_world(config: Training) -> Iterator[tuple[Device, World]]:
    """The device of this rank and the ranks together, all in the precision that rank 0 chose."""
    device = choose_device(config.device_type, config.dtype)
    if device.device.type == "cpu":
        keep_freed_memory()
    with joined(device.device) as world:
        device = replace(device, dtype=world.share(device.dtype))
        if device.dtype == torch.float16:
            raise ConfigError("--dtype=float16: training needs loss scaling in it; use bfloat16 or float32")
        if config.compile and device.device.type == "cpu" and not cpp_compiler():
            raise ConfigError("--compile: on a CPU that needs a C++ compiler (g++ or clang++), and there is none here")
        if config.fp8 and (problem := fp8.unsupported(device.device)):
            raise ConfigError(f"--fp8: {problem}")
        yield device, world


def cpp_compiler() -> str | None:
    """What torch.compile would call on a CPU."""
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def load_tokenizer(base: Path) -> Tokenizer:
    """The tokenizer of this base directory. Raises StageError when no tok_train has run."""
    folder = base / "tokenizer"
    if not (folder / "tokenizer.pkl").exists():
        raise StageError(f"no tokenizer in {folder}", "run tok_train first", "tokenizer")
    try:
        return Tokenizer.from_directory(folder)
    except TokenizerError as error:
        raise StageError(f"{folder} cannot be used: {error}", "train the tokenizer again", "tokenizer") from error

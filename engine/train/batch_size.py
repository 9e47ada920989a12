"""How many sequences one forward pass takes: asked for, or as many as the memory of the device holds; and what to say
when it turns out too small. Arithmetic first, then on a GPU a real step, because only that knows the allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import torch

from engine.context import StageContext, StageError
from engine.device import Device
from engine.dist import World, world_size
from engine.model.gpt import GPT
from engine.settings.training import Training
from engine.train.plan import step_bytes

_SHARE = 0.85  # of the free memory that may be planned with; the rest is for fragments and evaluations


def accumulation_steps(total_batch_size: int, device_batch_size: int, seq_len: int, world: int = 1) -> int:
    """Forward passes of one rank per optimizer step. Raises StageError when the batch sizes do not divide."""
    per_pass = device_batch_size * seq_len * world
    if total_batch_size % per_pass:
        ranks = f" x {world} ranks" if world > 1 else ""
        raise StageError(
            f"total_batch_size {total_batch_size:,} is not a multiple of device_batch_size x max_seq_len{ranks} "
            f"= {per_pass:,} tokens",
            f"use --total-batch-size={per_pass * max(1, total_batch_size // per_pass)}",
            "config",
        )
    return total_batch_size // per_pass


def fitting_batch_size(
    model: GPT, device: Device, world: World, seq_len: int, total_batch_size: int, *, compiled: bool = False
) -> int:
    """The largest power of two of sequences that divides the batch and fits in memory, the same on all ranks.

    Raises StageError when not even one fits.
    """
    rows = total_batch_size // (seq_len * world.size)
    if total_batch_size % (seq_len * world.size) or not rows:
        raise StageError(
            f"total_batch_size {total_batch_size:,} is not a multiple of max_seq_len x ranks = "
            f"{seq_len * world.size:,} tokens",
            "change one of them",
            "config",
        )
    most = rows & -rows  # the largest power of two that divides
    budget = _SHARE * min(world.gather(free_memory(device) / (1 if device.device.type == "cuda" else world.size)))
    size = most
    while size > 1 and _needed(model, size, seq_len, compiled) > budget:
        size //= 2
    while device.device.type == "cuda" and world.any(not _runs(model, size, seq_len)):
        if size == 1:
            raise OutOfMemory(1)
        size //= 2
    return size


def free_memory(device: Device) -> float:
    """Bytes that are free now: on the GPU, else in this machine."""
    if device.device.type == "cuda":
        return float(torch.cuda.mem_get_info(device.device)[0])
    return float(psutil.virtual_memory().available)


def _needed(model: GPT, batch_size: int, seq_len: int, compiled: bool) -> float:
    item = torch.tensor([], dtype=model.dtype).element_size()
    on_cpu = model.device.type == "cpu"
    return step_bytes(model.config, model.n_params(), batch_size, seq_len, item, compiled=compiled, on_cpu=on_cpu)


def _runs(model: GPT, batch_size: int, seq_len: int) -> bool:
    """Whether forward and backward of that many sequences get their memory; leaves no gradients behind."""
    ids = torch.zeros(batch_size, seq_len, dtype=torch.int64, device=model.device)
    try:
        model(ids, ids).backward()
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True


class OutOfMemory(StageError):
    """A training step of `device_batch_size` sequences per pass did not get its memory; says what to try."""

    def __init__(self, device_batch_size: int) -> None:
        advice = "choose a smaller model or a shorter --max-seq-len"
        if device_batch_size > 1:
            advice = f"use --device-batch-size={device_batch_size // 2} (or auto), or add --oom-retry"
        super().__init__(f"out of memory with {device_batch_size} sequences per forward pass", advice, "memory")
        self.device_batch_size = device_batch_size


@contextmanager
def memory_watched(device_batch_size: int) -> Iterator[None]:
    """Turn the several ways in which torch says that memory ran out into OutOfMemory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(device_batch_size) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error) and "not enough memory" not in str(error):
            raise
        raise OutOfMemory(device_batch_size) from error


def run_with_retry(
    config: Training, context: StageContext, stage: Callable[[Any, StageContext], None]
) -> None:
    """Run a stage; with --oom-retry, again with half as many sequences per pass when memory runs out, from the newest
    checkpoint. Several ranks cannot do that together: the one without memory has left the others."""
    while True:
        try:
            stage(config, context)
            return
        except OutOfMemory as error:
            size = error.device_batch_size
            if not config.oom_retry or size == 1 or world_size() > 1:
                raise
            told = str(error)
        config = replace(config, device_batch_size=size // 2, resume=True)
        context.log(f"{told}; going on with {size // 2}")
        context.events.alert("warning", "memory", told, f"going on with {size // 2} sequences per forward pass")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

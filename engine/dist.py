"""The processes of one stage as a world: who am I, how many are we, and the few things we say to each other.

torchrun describes the world in the environment (RANK, WORLD_SIZE, LOCAL_RANK, and where to meet), on one node or many;
without it there is one process, and every call here is free. Nothing else in the engine talks to torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(minutes=30)  # the slowest rank may compile or evaluate meanwhile


@dataclass(frozen=True)
class World:
    """Rank r of `size` processes. Every method is a collective: all ranks must call it, in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def alone(self) -> bool:
        return self.size == 1

    def barrier(self) -> None:
        if not self.alone:
            self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank: how a signal that reached one rank is obeyed by all at the same step."""
        if self.alone:
            return flag
        told = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def total(self, value: Tensor) -> Tensor:
        """The sum of a small tensor over all ranks, in place."""
        if not self.alone:
            dist.all_reduce(value)
        return value

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over all ranks."""
        if not self.alone:
            for handle in [dist.all_reduce(t, async_op=True) for t in tensors]:
                handle.wait()
            torch._foreach_div_(tensors, self.size)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank. Plain picklable Python."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def start_reduce_scatter(self, mine: Tensor, parts: Tensor) -> Any:
        """Begin to sum `parts` (W·n, ...) over all ranks; part r arrives in rank r's `mine` (n, ...)."""
        return dist.reduce_scatter_tensor(mine, parts, async_op=True)

    def start_all_reduce(self, whole: Tensor) -> Any:
        return dist.all_reduce(whole, async_op=True)

    def start_all_gather(self, parts: Tensor, mine: Tensor) -> Any:
        """Begin to put every rank's `mine` (n, ...) side by side into `parts` (W·n, ...)."""
        return dist.all_gather_into_tensor(parts, mine, async_op=True)


ALONE = World()


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun describes, for as long as the block runs. NCCL between GPUs, gloo between CPUs."""
    if world_size() == 1:
        yield World(device=device)
        return
    backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, timeout=_PATIENCE, device_id=own)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)), device)
    finally:
        dist.destroy_process_group()

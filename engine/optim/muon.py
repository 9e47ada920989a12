"""Muon as nanochat's seed has it: momentum whose update is made nearly orthogonal, for the matrices of the blocks.

Source: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). Parameters of one shape
are stacked, so that their iterations are one batched product. Over several ranks each matrix has one owner, who keeps
its momentum and computes its update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from engine.dist import ALONE, World
from engine.optim import phases
from engine.optim.orthogonal import newton_schulz


def by_shape(params: Iterable[Tensor]) -> dict[torch.Size, list[Tensor]]:
    """Parameters of one shape together, in the order in which the shapes first come."""
    same: dict[torch.Size, list[Tensor]] = {}
    for p in params:
        same.setdefault(p.shape, []).append(p)
    return same


def matrices_unit(
    params: list[Tensor], owned: list[list[int]], world: World, averaged: bool, update: Callable[[list[int]], None]
) -> phases.Unit:
    """Matrices of one shape over all ranks: `owned[r]` are the indices that rank r updates, equally many for each.

    An index beyond the last parameter is padding. `update(indices)` changes those parameters, whose `grad` is the mean
    over all ranks by then.
    """
    mine = [i for i in owned[world.rank] if i < len(params)]
    if world.alone:
        update(mine)
        return
    if not averaged:
        parts = _stacked([p.grad for p in params], owned)
        summed = torch.empty_like(parts[: len(owned[0])])
        yield world.start_reduce_scatter(summed, parts)
        summed.div_(world.size)
        for place, i in enumerate(mine):
            params[i].grad = summed[place]
    update(mine)
    parts = _stacked([p.data for p in params], [owned[world.rank]])
    everyone = parts.new_empty(len(owned) * len(parts), *parts.shape[1:])
    yield world.start_all_gather(everyone, parts)
    for place, i in enumerate(i for indices in owned for i in indices):
        if i < len(params):
            params[i].data.copy_(everyone[place])


def _stacked(tensors: list[Any], owned: list[list[int]]) -> Tensor:
    """(number of indices, m, n): the tensors in the order of their owners, zeros for padding."""
    nothing = torch.zeros_like(tensors[0])
    return torch.stack([tensors[i] if i < len(tensors) else nothing for indices in owned for i in indices])


class Muon(torch.optim.Optimizer):
    """p -= lr · √max(1, rows/cols) · newton_schulz(nesterov momentum of the gradient). No weight decay."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        ns_steps: int = 5,
        ns_dtype: torch.dtype = torch.bfloat16,
        world: World = ALONE,
    ) -> None:
        self.ns_dtype, self.world, self.averaged = ns_dtype, world, False
        self.in_order = list(params)  # as the model lists them
        groups = [{"params": same} for same in muon_groups(self.in_order, world)]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": True, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update; every parameter must have a gradient."""
        phases.run(self._units())

    def _units(self) -> Iterator[phases.Unit]:
        for group in self.param_groups:
            for params in by_shape(group["params"]).values():
                yield self._unit(params, group)

    def _unit(self, params: list[Tensor], group: dict[str, Any]) -> phases.Unit:
        def update(indices: list[int]) -> None:
            if indices:
                self._update([params[i] for i in indices], group)

        return matrices_unit(params, in_turn(len(params), self.world.size), self.world, self.averaged, update)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = torch.stack([self._nesterov(p, group["momentum"]) for p in params])
        updates = newton_schulz(grads.to(self.ns_dtype), group["ns_steps"])
        rows, cols = params[0].shape
        scale = group["lr"] * max(1.0, rows / cols) ** 0.5
        for p, update in zip(params, updates, strict=True):
            p.add_(update.to(p.dtype), alpha=-scale)

    def _nesterov(self, p: Tensor, momentum: float) -> Tensor:
        """Look-ahead momentum, (rows, cols): the buffer moves to the gradient, the result from there to the buffer."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def in_turn(count: int, size: int) -> list[list[int]]:
    """Owners of `count` matrices in the seed era: blocks of `size`, one matrix of each block per rank."""
    per_rank = -(-count // size)
    return [list(range(rank, per_rank * size, size)) for rank in range(size)]


def muon_groups(params: list[Tensor], world: World) -> list[list[Tensor]]:
    """Parameter groups as nanochat numbers them: by element count alone, by sorted shape over several ranks."""
    if world.alone:
        by_size: dict[int, list[Tensor]] = {}
        for p in params:
            by_size.setdefault(p.numel(), []).append(p)
        return list(by_size.values())
    same = by_shape(params)
    return [same[shape] for shape in sorted(same)]

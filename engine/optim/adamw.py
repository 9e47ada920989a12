"""AdamW whose state is split over the ranks (ZeRO-2): each rank updates its rows of a parameter, then all share them.

The arithmetic is torch's own fused kernel on a slice, so that one process gives the very bits of torch.optim.AdamW and
several give the same update of the same averaged gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from engine.dist import ALONE, World
from engine.optim import phases

REPLICATE_BELOW = 1024  # elements; smaller parameters are not worth splitting


def splits(shape: torch.Size, size: int) -> bool:
    """Whether a parameter's rows are divided among `size` ranks; else every rank holds the whole state."""
    return size > 1 and shape[0] % size == 0 and shape.numel() >= REPLICATE_BELOW


def adamw_unit(p: Tensor, state: dict[str, Any], group: dict[str, Any], world: World, averaged: bool) -> phases.Unit:
    """One parameter's update. `averaged`: its gradient is the mean over all ranks already."""
    assert p.grad is not None
    split = splits(p.shape, world.size)
    rows = _own_rows(p, world) if split else slice(None)
    gradient = p.grad[rows]
    if not averaged and not world.alone:
        if split:
            gradient = torch.empty_like(p.grad[rows])
            yield world.start_reduce_scatter(gradient, p.grad.contiguous())
        else:
            yield world.start_all_reduce(gradient)
        gradient.div_(world.size)
    own = p.data[rows]
    _update(own, gradient, state, group)
    if split:
        yield world.start_all_gather(p.data, own.clone())


def _own_rows(p: Tensor, world: World) -> slice:
    n = p.shape[0] // world.size
    return slice(world.rank * n, (world.rank + 1) * n)


def _update(p: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        state["exp_avg"] = torch.zeros_like(p)
        state["exp_avg_sq"] = torch.zeros_like(p)
    beta1, beta2 = group["betas"]
    adamw(
        [p],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        fused=p.device.type in ("cpu", "cuda", "mps"),
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


class AdamW(torch.optim.Optimizer):
    """The classic era's optimizer of the embedding tables."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float] = (0.8, 0.95),
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        world: World = ALONE,
    ) -> None:
        self.world, self.averaged = world, False
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update; every parameter must have a gradient."""
        phases.run(self._units())

    def _units(self) -> Iterator[phases.Unit]:
        for group in self.param_groups:
            for p in group["params"]:
                yield adamw_unit(p, self.state[p], group, self.world, self.averaged)

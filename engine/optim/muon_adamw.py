"""nanochat's present optimizer: one object, AdamW for tables and scalars, a refined Muon for the matrices.

The Muon here adds to the seed's: rows brought to one norm before (MuonEq) and the whole matrix after (Muon+), Polar
Express instead of Newton-Schulz, a second moment per row or column (NorMuon, Li et al. 2025), and weight decay only
where it pulls the way of the update (cautious decay). Over several ranks each owns a run of neighbouring matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from engine.dist import ALONE, World
from engine.optim import phases
from engine.optim.adamw import adamw_unit
from engine.optim.muon import matrices_unit
from engine.optim.orthogonal import polar_express

Group = dict[str, Any]


def in_chunks(count: int, size: int) -> list[list[int]]:
    """Owners of `count` matrices: each rank the next ceil(count / size) of them."""
    per_rank = -(-count // size)
    return [list(range(rank * per_rank, (rank + 1) * per_rank)) for rank in range(size)]


class MuonAdamW(torch.optim.Optimizer):
    """Groups carry `kind` "adamw" (lr, betas, eps, weight_decay) or "muon" (lr, momentum, beta2, ns_steps,
    weight_decay; matrices of one shape). `compute_dtype` is the precision of the orthogonalisation."""

    def __init__(
        self,
        groups: list[Group],
        compute_dtype: torch.dtype = torch.float32,
        world: World = ALONE,
        compiled: bool = False,
    ) -> None:
        self.compute_dtype, self.world, self.averaged = compute_dtype, world, False
        self._direction = torch.compile(direction, dynamic=False) if compiled else direction
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update; every parameter must have a gradient."""
        phases.run(self._units())

    def _units(self) -> Iterator[phases.Unit]:
        for group in self.param_groups:
            if group["kind"] == "adamw":
                for p in group["params"]:
                    yield adamw_unit(p, self.state[p], group, self.world, self.averaged)
            else:
                yield self._matrices(group)

    def _matrices(self, group: Group) -> phases.Unit:
        params = group["params"]
        owned = in_chunks(len(params), self.world.size)

        def update(indices: list[int]) -> None:
            if indices:
                self._update([params[i] for i in indices], len(owned[0]), group)

        return matrices_unit(params, owned, self.world, self.averaged, update)

    def _update(self, params: list[Tensor], room: int, group: Group) -> None:
        """Update this rank's matrices; the state has `room` for them and for the padding behind the last."""
        n = len(params)
        momentum, second = (buffer[:n] for buffer in self._buffers(group, room))
        gradients = torch.stack([p.grad for p in params if p.grad is not None])
        update = self._direction(gradients, momentum, second, group, self.compute_dtype)
        rows, cols = params[0].shape
        lr = group["lr"] * max(1.0, rows / cols) ** 0.5
        stacked = torch.stack(params)
        decay = group["weight_decay"] * stacked * (update * stacked >= 0)
        for p, step in zip(params, lr * (update + decay), strict=True):
            p.sub_(step)

    def _buffers(self, group: Group, room: int) -> tuple[Tensor, Tensor]:
        """momentum_buffer (room, m, n) and second_momentum_buffer (room, m, 1) or (room, 1, n), on the first one."""
        first = group["params"][0]
        state = self.state[first]
        if "momentum_buffer" not in state:
            m, n = first.shape
            state["momentum_buffer"] = first.new_zeros(room, m, n)
            state["second_momentum_buffer"] = first.new_zeros((room, m, 1) if m >= n else (room, 1, n))
        return state["momentum_buffer"], state["second_momentum_buffer"]


def direction(gradients: Tensor, momentum: Tensor, second: Tensor, group: Group, dtype: torch.dtype) -> Tensor:
    """Where to move, (K, m, n), from gradients of that shape; moves both momenta on."""
    momentum.lerp_(gradients, 1 - group["momentum"])
    X = gradients.lerp(momentum, group["momentum"]).to(dtype)
    X = polar_express(_even_rows(X), group["ns_steps"])
    X = X * (min(X.shape[-2:]) ** 0.5 / X.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7))
    return _normalised(X.float(), second, group["beta2"])


def _even_rows(X: Tensor) -> Tensor:
    """X (K, m, n) with every row at the mean row norm, ‖X‖/√m."""
    target = X.norm(dim=(-2, -1), keepdim=True) / X.shape[-2] ** 0.5
    return X * (target / X.norm(dim=-1, keepdim=True).clamp_min(1e-7))


def _normalised(X: Tensor, second: Tensor, beta2: float) -> Tensor:
    """X (K, m, n) divided by the root of its running second moment per row or column; the total norm stays."""
    across = -1 if X.shape[-2] >= X.shape[-1] else -2
    moment = X.square().mean(dim=across, keepdim=True)
    second.lerp_(moment, 1 - beta2)
    scale = second.clamp_min(1e-10).rsqrt()
    before, after = X.norm(dim=(-2, -1), keepdim=True), (X * scale).norm(dim=(-2, -1), keepdim=True)
    return X * scale * (before / after.clamp_min(1e-10))

"""Muon: momentum whose update is made nearly orthogonal, for the matrices of the blocks.

Source: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the constants that
nanochat's seed uses. Parameters of one shape are stacked, so that their iterations are one batched product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Quintic a·x + b·x³ + c·x⁵, chosen for a steep slope at 0; it maps singular values into about [0.7, 1.2], not to 1.
_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(G: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest semi-orthogonal matrix to each of G (K, m, n), roughly, by Newton-Schulz in `dtype`."""
    a, b, c = _NS_COEFFICIENTS
    X = G.to(dtype)
    tall = X.size(-2) > X.size(-1)
    if tall:
        X = X.mT
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


class Muon(torch.optim.Optimizer):
    """p -= lr · √max(1, rows/cols) · orthogonalize(nesterov momentum of the gradient). No weight decay."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        ns_steps: int = 5,
        ns_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.ns_dtype = ns_dtype
        by_size: dict[int, list[Tensor]] = {}
        for p in params:
            by_size.setdefault(p.numel(), []).append(p)
        groups = [{"params": same} for same in by_size.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": True, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update; every parameter must have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for same in by_shape.values():
                self._update(same, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = torch.stack([self._nesterov(p, group["momentum"]) for p in params])
        updates = orthogonalize(grads, group["ns_steps"], self.ns_dtype)
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

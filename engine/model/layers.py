"""The two pieces every block is made of: a bias-free linear map and a gain-free RMS norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model import row_kernels

Product = Callable[[Tensor, Tensor], Tensor]  # x (..., in), W (out, in) float32 -> (..., out)


class Linear(nn.Module):
    """y = x Wᵀ, with W (out, in) kept in float32 and cast to the input's precision at every use.

    `product` computes it another way while it is set.
    """

    product: Product | None = None

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in))

    def forward(self, x: Tensor) -> Tensor:
        if self.product is not None:
            return self.product(x, self.weight)
        return F.linear(x, self.weight.to(x.dtype))


def rms_norm(x: Tensor) -> Tensor:
    """x divided by its root mean square over the last dimension (torch's default epsilon, no gain)."""
    if row_kernels.serves(x):
        y: Tensor = row_kernels.Norm.apply(x)
        return y
    return F.rms_norm(x, (x.shape[-1],))

"""The two pieces every block is made of: a bias-free linear map and a gain-free RMS norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    if x.dtype == torch.bfloat16 and x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling():
        y: Tensor = _RMSNorm.apply(x)
        return y
    return F.rms_norm(x, (x.shape[-1],))


class _RMSNorm(torch.autograd.Function):
    """The same with its gradient written out, for bfloat16 on a CPU: torch composes both from a dozen operations there
    and keeps float32 copies for the way back, three times the time and four times the memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_().div_(x.shape[-1])
        scale = mean.add_(torch.finfo(torch.float32).eps).rsqrt_()  # (..., 1), 1 / root mean square
        y = (x * scale).to(x.dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        along = (dy * y).mean(-1, keepdim=True)
        return torch.addcmul(dy, y, along, value=-1.0).mul_(scale)

"""Weights in one byte: every row of a matrix as whole numbers from -127 to 127 and the size of one of them.

Only weights are rounded. PyTorch reads a prompt with the products of the model's own precision, for which the numbers
are widened a matrix at a time, and the native prompt widens them as it packs; the native step multiplies them as they
are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.inference.arena import Arena, size
from engine.inference.native import quantize_into
from engine.model.gpt import GPT
from engine.model.layers import Linear

_SMALLEST = 1024  # weights: a gate of a few channels stays as it is


class Int8Linear(nn.Module):
    """y = x Wᵀ with `weight` (out, in) int8 and `scales` (out,) float32: W is their product, row by row."""

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype)) * self.scales.to(x.dtype)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (out, in) -> whole numbers (out, in) int8 and their scales (out,) float32."""
    weight = weight.float().contiguous()
    numbers, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(weight.shape[0])
    quantize_into(weight, numbers, scales)
    return numbers, scales


@torch.no_grad()
def quantize(model: GPT) -> None:
    """Replace the matrices of a model on the CPU by int8 ones, in memory with huge pages, one after the other."""
    found = [(parent, name, child) for parent in list(model.modules()) for name, child in parent.named_children()
             if isinstance(child, Linear) and child.weight.numel() >= _SMALLEST]
    arena = Arena(sum(size(child.weight.numel()) + size(4 * child.weight.shape[0]) for _, _, child in found))
    for parent, name, child in found:
        shape = child.weight.shape
        numbers, scales = arena.empty(shape, torch.int8), arena.empty(shape[:1], torch.float32)
        quantize_into(child.weight.detach().float().contiguous(), numbers, scales)
        setattr(parent, name, Int8Linear(numbers, scales))

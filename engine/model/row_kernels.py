"""What a training step on a CPU does between its products, in one pass each: our Rust kernels behind tensors.

PyTorch composes a norm, a rotation or relu² from many small operations there, each of which reads and writes the whole
tensor and keeps it for the way back. These keep what the products keep anyway, and compute the rest again. On a GPU,
compiled, or where nothing is trained, this module is not asked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rustbpe import RowKernels

_PRECISIONS = (torch.float32, torch.bfloat16)
_PIECE_BYTES, _LEAST_ROWS = 6 << 20, 256  # of the MLP's hidden layer; fewer rows make poor products


def serves(x: Tensor) -> bool:
    """Whether `x` is on its way through a training step, as PyTorch does it operation by operation."""
    return x.requires_grad and know(x) and not torch.compiler.is_compiling()


def know(x: Tensor) -> bool:
    """Whether the kernels can work on `x` at all."""
    return x.device.type == "cpu" and x.dtype in _PRECISIONS


def kernels(x: Tensor) -> RowKernels:
    """The kernels for tensors like `x`, on as many threads as PyTorch's products have."""
    return _kernels(x.dtype == torch.bfloat16, torch.get_num_threads())


@functools.lru_cache(maxsize=8)
def _kernels(bf16: bool, threads: int) -> RowKernels:
    return RowKernels(bf16, threads)


class Norm(torch.autograd.Function):
    """x (..., C) over its root mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        kernels(x).norm(x.data_ptr(), y.data_ptr(), scale.data_ptr(), scale.numel(), x.shape[-1])
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        dy = dy.contiguous()
        dx = torch.empty_like(dy)
        places = (y.data_ptr(), scale.data_ptr(), dy.data_ptr(), dx.data_ptr())
        kernels(y).norm_gradient(*places, scale.numel(), y.shape[-1])
        return dx


class RotateNorm(torch.autograd.Function):
    """x (B, T, H, D) rotated by its position, normalised, times `amount`: (B, H, T, D). cos and sin are (T, 1, D/2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, amount: float) -> Tensor:
        B, T, H, D = x.shape
        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        y, scale = x.new_empty(B, H, T, D), x.new_empty(B, H, T, dtype=torch.float32)
        turn = (cos.data_ptr(), sin.data_ptr())
        kernels(x).rotate_norm(x.data_ptr(), y.data_ptr(), scale.data_ptr(), turn, (B, T, H, D), amount)
        ctx.save_for_backward(y, scale, cos, sin)
        ctx.amount = amount
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        y, scale, cos, sin = ctx.saved_tensors
        B, H, T, D = y.shape
        dy, dx = dy.contiguous(), y.new_empty(B, T, H, D)
        places = (y.data_ptr(), scale.data_ptr(), dy.data_ptr(), dx.data_ptr(), (cos.data_ptr(), sin.data_ptr()))
        kernels(y).rotate_norm_gradient(*places, (B, T, H, D), ctx.amount)
        return dx, None, None, None


class Relu2MLP(torch.autograd.Function):
    """max(x Uᵀ, 0)² Dᵀ for x (..., C), U (F, C), D (C, F) in one precision, a few rows at a time, so that what lies
    between the products need not leave the last cache. Of the hidden layer only x Uᵀ is kept, piece by piece: small
    blocks of memory find a place where large ones do not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y, hidden = torch.empty_like(rows), []
        for some, out in _in_pieces(up, rows, y):
            hidden.append(some @ up.T)
            torch.mm(_relu2(hidden[-1]), down.T, out=out)
        ctx.save_for_backward(rows, up, down, *hidden)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, up, down, *hidden = ctx.saved_tensors
        dx, d_up, d_down = torch.empty_like(rows), torch.zeros(up.shape), torch.zeros(down.shape)
        pieces = _in_pieces(up, rows, dy.reshape(rows.shape), dx)
        for pre, (some, d_out, out) in zip(hidden, pieces, strict=True):
            add_to(d_down, d_out.T @ _relu2(pre))
            slopes = d_out @ down
            kernels(pre).relu2_gradient(pre.data_ptr(), slopes.data_ptr(), pre.numel())
            torch.mm(slopes, up, out=out)
            add_to(d_up, slopes.T @ some)
        return dx.view(dy.shape), d_up.to(up.dtype), d_down.to(down.dtype)


def _in_pieces(up: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few rows of each tensor at a time, as many as are _PIECE_BYTES of the hidden layer behind `up` (F, C)."""
    size = max(_LEAST_ROWS, _PIECE_BYTES // (len(up) * up.element_size()))
    return zip(*(t.split(size) for t in tensors), strict=True)


def _relu2(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    kernels(x).relu2(x.data_ptr(), y.data_ptr(), x.numel())
    return y


def add_to(total: Tensor, part: Tensor) -> None:
    """total += part, of one shape, without a copy of `part` in float32."""
    if know(part) and total.dtype == torch.float32 and total.is_contiguous() and part.is_contiguous():
        kernels(part).add(total.data_ptr(), part.data_ptr(), part.numel())
    else:
        total += part

"""Cross entropy of soft-capped logits, a few hundred rows at a time: the logits of a whole batch never exist.

At a vocabulary of 32,768 they would be the largest tensor of a training step several times over (logits, their tanh,
the softmax, the gradient). Each chunk's gradients are taken while its logits are at hand: nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model import row_kernels

IGNORE = -1  # target value that does not count in the loss

_CHUNK_ELEMENTS = 1 << 22  # logits at a time, 16 MB of float32: what a CPU's last cache holds
_BLOCK = 1024  # rows whose gradients meet the weight in one product


@torch.compiler.disable  # type: ignore[untyped-decorator]
def mean_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float) -> Tensor:
    """Mean loss () in nats over targets (N,) that are not IGNORE, of x (N, C) against lm_head's weight (rows, C).

    With gradients to x and weight; 0/0 is NaN where no target counts.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        loss: Tensor = _MeanCrossEntropy.apply(x, weight, targets, vocab_size, softcap)
        return loss
    losses = row_cross_entropy(x, weight, targets, vocab_size, softcap)
    return losses.sum() / (targets != IGNORE).sum()


def row_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float) -> Tensor:
    """Loss (N,) of every row, 0 where its target is IGNORE; without gradients."""
    columns = weight[:vocab_size].to(x.dtype)
    losses = [
        F.cross_entropy(
            softcap * torch.tanh((rows @ columns.T).float() / softcap), t, ignore_index=IGNORE, reduction="none"
        )
        for rows, t in _chunks(x, targets, vocab_size)
    ]
    return torch.cat(losses)


def _chunks(x: Tensor, targets: Tensor, vocab_size: int) -> zip[tuple[Tensor, Tensor]]:
    size = _rows(vocab_size)
    return zip(x.split(size), targets.split(size), strict=True)


def _rows(vocab_size: int) -> int:
    return max(64, _CHUNK_ELEMENTS // vocab_size)


class _MeanCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass for an outer gradient of 1, and scaled by the real one in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float) -> Tensor:
        columns = weight[:vocab_size].to(x.dtype)  # (V, C)
        counted = (targets != IGNORE).sum()
        piece = _native_piece if row_kernels.know(x) else _Chunk(min(_rows(vocab_size), _BLOCK, len(x)), vocab_size, x)
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        dlogits, dw_part = x.new_empty(min(_BLOCK, len(x)), vocab_size), torch.empty_like(columns)
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), _BLOCK):
            rows, t = x[start : start + _BLOCK], targets[start : start + _BLOCK]
            slopes = dlogits[: len(rows)]
            total += piece(rows, columns, t, softcap, counted, slopes)
            torch.mm(slopes, columns, out=dx[start : start + len(rows)])
            row_kernels.add_to(dw[:vocab_size], torch.mm(slopes.T, rows, out=dw_part))
        ctx.save_for_backward(dx, dw)
        return total / counted

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        return dx.mul_(outer.to(dx.dtype)), dw.mul_(outer), None, None, None


def _native_piece(
    x: Tensor, columns: Tensor, targets: Tensor, softcap: float, counted: Tensor, dlogits: Tensor
) -> Tensor:
    """Sum of losses () of rows x (n, C); the gradient by the logits before the softcap, divided by `counted`, is
    written where these were, into `dlogits` (n, V)."""
    n, vocab_size = dlogits.shape
    if int(targets.max()) >= vocab_size:
        raise IndexError(f"target {int(targets.max())} is not in a vocabulary of {vocab_size} tokens")
    torch.mm(x, columns.T, out=dlogits)
    targets, losses = targets.contiguous(), x.new_empty(n, dtype=torch.float32)
    places = (dlogits.data_ptr(), targets.data_ptr(), losses.data_ptr())
    row_kernels.kernels(x).softcapped_loss(*places, n, vocab_size, softcap, 1 / max(1, int(counted)))
    return losses.sum()


class _Chunk:
    """The same with PyTorch, a few rows at a time. Buffers are used again: fresh memory would have to be cleared."""

    def __init__(self, size: int, vocab_size: int, like: Tensor) -> None:
        self.size = size
        self.z = like.new_empty(size, vocab_size)
        self.slope = torch.empty(size, vocab_size, device=like.device)
        self.p = torch.empty_like(self.slope)

    def __call__(
        self, x: Tensor, columns: Tensor, targets: Tensor, softcap: float, counted: Tensor, dlogits: Tensor
    ) -> Tensor:
        pieces = zip(x.split(self.size), targets.split(self.size), dlogits.split(self.size), strict=True)
        losses = [self._piece(rows, columns, t, softcap, counted, slopes) for rows, t, slopes in pieces]
        return torch.stack(losses).sum()

    def _piece(
        self, x: Tensor, columns: Tensor, targets: Tensor, softcap: float, counted: Tensor, dlogits: Tensor
    ) -> Tensor:
        n = len(x)
        z, slope, p = self.z[:n], self.slope[:n], self.p[:n]
        torch.mm(x, columns.T, out=z)
        slope.copy_(z).mul_(1 / softcap).tanh_()
        torch.mul(slope, softcap, out=p).exp_()  # within e**±softcap, so no maximum need be taken off
        sums = p.sum(-1, keepdim=True)
        chosen = targets.clamp(min=0)[:, None]
        share = (targets[:, None] != IGNORE) / counted  # of each row in the mean
        losses = sums.log() - softcap * slope.gather(1, chosen)
        p.mul_(share / sums).scatter_add_(1, chosen, -share)
        dlogits.copy_(p.addcmul_(p, slope.square_(), value=-1.0))
        return (losses * share).sum() * counted

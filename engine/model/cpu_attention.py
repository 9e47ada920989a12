"""Causal attention in training on a CPU: a few sequences and a block of queries at a time.

PyTorch's fused kernel has a slow way back on CPUs, and whole scores cost memory as T². Here the scores of a block are
made, used while the last cache holds them, and made again on the way back; keys that no query of a block sees are left
out, which halves the work of long contexts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.model.row_kernels import kernels

_BLOCK = 256  # queries at a time: the fewer, the less is computed in vain; but products like them many
_SCORES_BYTES = 8 << 20  # of a block in a few sequences


class _Block(NamedTuple):
    """Neighbouring queries, and the keys that some of them see."""

    queries: slice
    keys: slice

    @property
    def first(self) -> int:
        """How many of these keys the first query sees before itself."""
        return int(self.queries.start - self.keys.start)


def _blocks(T: int, window: int) -> Iterator[_Block]:
    for start in range(0, T, _BLOCK):
        end = min(T, start + _BLOCK)
        yield _Block(slice(start, end), slice(max(0, start - window), end))


class _Shares:
    """Tensors (B, H, T, D) in shares of a few sequences, and memory for their scores, used again for each."""

    def __init__(self, like: Tensor) -> None:
        B, H, T, _ = like.shape
        most = H * min(T, _BLOCK) * T
        self.size = min(B, max(1, _SCORES_BYTES // (most * like.element_size())))
        self.room = like.new_empty(self.size * most)

    def of(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Share by share, (b·H, T, D) each."""
        for parts in zip(*(t.split(self.size) for t in tensors), strict=True):
            yield tuple(part.flatten(0, 1) for part in parts)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q kᵀ, (b·H, queries, keys), in the same place every time."""
        shape = (len(q), q.shape[1], k.shape[1])
        scores = self.room[: shape[0] * shape[1] * shape[2]].view(shape)
        return torch.bmm(q, k.mT, out=scores)


class CausalAttention(torch.autograd.Function):
    """q, k, v (B, H, T, D) -> (B, T, H, D). A query sees itself and up to `window` keys before it, or all (None)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        B, H, T, D = q.shape
        ctx.window = T if window is None else window
        ctx.save_for_backward(q, k, v)
        shares, y = _Shares(q), q.new_empty(B, T, H, D)
        for some, out in zip(shares.of(q, k, v), y.split(shares.size), strict=True):
            for block in _blocks(T, ctx.window):
                part = _weights(some, block, ctx.window, shares) @ some[2][:, block.keys]
                out[:, block.queries] = part.unflatten(0, (-1, H)).transpose(1, 2)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        shares, slopes = _Shares(q), _Shares(q)
        dq, dk, dv = (torch.empty_like(t) for t in (q, k, v))
        places = zip(*(t.split(shares.size) for t in (dq, dk, dv)), strict=True)
        for some, to in zip(shares.of(q, k, v, dy.transpose(1, 2)), places, strict=True):
            for gradient, out in zip(_gradients(some, ctx.window, shares, slopes), to, strict=True):
                out.copy_(gradient.view(out.shape))
        return dq, dk, dv, None


def _weights(some: Sequence[Tensor], block: _Block, window: int, shares: _Shares) -> Tensor:
    """Attention weights (b·H, queries, keys) of a block, from q and k (b·H, T, D) of a share, its first two tensors."""
    q, k = some[:2]
    scores = shares.scores(q[:, block.queries], k[:, block.keys])
    kernels(q).softmax(scores.data_ptr(), _sizes(scores), block.first, window, q.shape[-1] ** -0.5)
    return scores


def _gradients(
    some: Sequence[Tensor], window: int, shares: _Shares, slopes: _Shares
) -> tuple[Tensor, Tensor, Tensor]:
    """Those by q, k and v from these and dy (b·H, T, D) of a share. What several blocks add to a key is added up in
    float32."""
    q, k, v, dy = some
    dq, dk, dv = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
    for block in _blocks(q.shape[1], window):
        weights, d_out = _weights(some, block, window, shares), dy[:, block.queries]
        d_scores = slopes.scores(d_out, v[:, block.keys])
        places, scale = (weights.data_ptr(), d_scores.data_ptr()), q.shape[-1] ** -0.5
        kernels(q).softmax_gradient(*places, _sizes(weights), block.first, window, scale)
        dv[:, block.keys] += weights.mT @ d_out
        dq[:, block.queries] = d_scores @ k[:, block.keys]
        dk[:, block.keys] += d_scores.mT @ q[:, block.queries]
    return dq, dk, dv


def _sizes(scores: Tensor) -> tuple[int, int, int]:
    heads, queries, keys = scores.shape
    return heads, queries, keys

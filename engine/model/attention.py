"""Causal self-attention with rotary positions, QK norm, grouped key/value heads, sliding windows and value embeddings,
with or without a KV cache."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model import flash, row_kernels
from engine.model.config import Architecture, GPTConfig, windows
from engine.model.cpu_attention import CausalAttention
from engine.model.layers import Linear, rms_norm
from engine.model.value_embedding import gated, value_gate


class Cache(Protocol):
    """What attention needs of a KV cache: a place to write, everything written so far, and who may see what."""

    pos: int
    state: dict[str, Tensor]  # what the model itself carries from call to call, tensors (B, ...)

    def insert(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, t, D) at `pos`; return views (B, K, pos + t, D) of all that is stored."""
        ...

    def places(self, t: int) -> slice | Tensor:
        """Where t new tokens stand: a slice of positions, or (B, t) of them."""
        ...

    def mask(self, t: int, window: int | None) -> Tensor | None:
        """Who sees what when t tokens are added at `pos`: (B or 1, 1, t, pos + t) bool, the layer's window included, or
        None when plain causal order (t tokens into an empty cache) or full sight (one token), within the window, says
        it all."""
        ...

    def advance(self, t: int) -> None:
        """Move `pos` on by t tokens, after the last layer has written them."""
        ...


def rotary_tables(config: GPTConfig, architecture: Architecture, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin, each (sequence_len, 1, D/2) in `dtype`; in the older eras rounded to bfloat16 first, as trained."""
    pair = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    inv_freq = 1.0 / (architecture.rope_base ** (pair / config.head_dim))
    angle = torch.outer(torch.arange(config.sequence_len, dtype=torch.float32), inv_freq)[:, None, :]
    cos, sin = angle.cos(), angle.sin()
    if architecture.bf16_rotary:
        cos, sin = cos.bfloat16(), sin.bfloat16()
    return cos.to(dtype), sin.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_j, x_{j+D/2}) of x (B, T, H, D) by minus their angle; cos and sin are (B or none, T, 1, D/2).

    The sign is nanochat's: the transpose of the usual rotation, which its checkpoints were trained with.
    """
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, window: int | None) -> Tensor:
    """q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D). The T queries are the last T of the S positions.

    A mask says all. Without one: causal, or full sight when T is 1, and with a window at most that many keys back.
    """
    T, S, grouped = q.shape[2], k.shape[2], q.shape[1] != k.shape[1]
    if window is not None and window >= S - 1:
        window = None
    if window is not None and mask is None:
        if T == 1:
            k, v = k[:, :, S - window - 1 :], v[:, :, S - window - 1 :]
        else:
            mask = sight(T, S, window, q.device)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None and T > 1, enable_gqa=grouped)


def sight(T: int, S: int, window: int, device: torch.device) -> Tensor:
    """(T, S) bool: which of S keys each of the last T positions sees, itself and `window` before it."""
    ones = torch.ones(T, S, dtype=torch.bool, device=device)
    return ones.tril(S - T).triu(S - T - window)


class CausalSelfAttention(nn.Module):
    """(B, T, C) -> (B, T, C). Bias-free projections; queries and keys are normalised after the rotation."""

    def __init__(self, config: GPTConfig, architecture: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.architecture, self.window = layer, architecture, windows(config, architecture)[layer]
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.c_q = Linear(config.n_embd, config.n_head * config.head_dim)
        self.c_k = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_v = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        if architecture.gate_channels and config.has_value_embedding(layer):
            self.ve_gate = value_gate(config, architecture)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, value: Tensor | None = None, kv_cache: Cache | None = None
    ) -> Tensor:
        """x (B, T, C); `value` (B, T, K·D) is the tokens' value embedding, in layers that have one."""
        B, T, C = x.shape
        q = self.c_q(x).view(B, T, self.n_head, self.head_dim)
        k = self.c_k(x).view(B, T, self.n_kv_head, self.head_dim)
        v = self.c_v(x).view(B, T, self.n_kv_head, self.head_dim)
        if value is not None:
            v = gated(v, value, x, self.ve_gate, self.architecture)
        if kv_cache is None and row_kernels.serves(q) and self.n_head == self.n_kv_head:
            return self.c_proj(self._attend_in_training(q, k, v, cos, sin).view(B, T, C))
        q, k = rms_norm(rotate(q, cos, sin)), rms_norm(rotate(k, cos, sin))
        if (scale := self.architecture.qk_scale) != 1.0:
            q, k = q * scale, k * scale
        if kv_cache is None and flash.available(q):
            y = flash.attend(q, k, v, self.window).reshape(B, T, C)
        else:
            y = self._attend_transposed(q, k, v, kv_cache).transpose(1, 2).reshape(B, T, C)
        return self.c_proj(y)

    def _attend_in_training(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """On a CPU: q, k, v (B, T, H, D), not rotated yet -> (B, T, H, D)."""
        q, k = (row_kernels.RotateNorm.apply(x, cos, sin, self.architecture.qk_scale) for x in (q, k))
        y: Tensor = CausalAttention.apply(q, k, v.transpose(1, 2).contiguous(), self.window)
        return y

    def _attend_transposed(self, q: Tensor, k: Tensor, v: Tensor, kv_cache: Cache | None) -> Tensor:
        """q (B, T, H, D), k and v (B, T, K, D), with what the cache holds before them -> (B, H, T, D)."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mask = None
        if kv_cache is not None:
            mask = kv_cache.mask(q.shape[2], self.window)
            k, v = kv_cache.insert(self.layer, k, v)
        return _attend(q, k, v, mask, self.window)

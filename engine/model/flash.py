"""FlashAttention kernels on CUDA, where this torch and this GPU have them; elsewhere attention.py uses SDPA.

Torch's own variable-length kernel is taken because it knows sliding windows, which SDPA computes only through a mask.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@functools.lru_cache(maxsize=1)
def _kernel() -> Callable[..., Any] | None:
    """torch.nn.attention.varlen.varlen_attn when it takes a window, else None."""
    try:
        kernel = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    return kernel if "window_size" in inspect.signature(kernel).parameters else None


@functools.lru_cache(maxsize=8)
def _capable(index: int) -> bool:
    return torch.cuda.get_device_capability(index) >= (8, 0)


def available(q: Tensor) -> bool:
    """Whether `attend` can compute this: half precision on a CUDA GPU since Ampere."""
    return (
        q.is_cuda
        and q.dtype in (torch.bfloat16, torch.float16)
        and torch.version.hip is None
        and _kernel() is not None
        and _capable(q.device.index or 0)
    )


def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Causal attention of whole sequences: q (B, T, H, D), k and v (B, T, K, D) -> (B, T, H, D).

    A query sees itself and the `window` keys before it, or all of them.
    """
    kernel = _kernel()
    assert kernel is not None
    B, T, H, D = q.shape
    ends = torch.arange(0, (B + 1) * T, T, device=q.device, dtype=torch.int32)
    flat = (x.reshape(B * T, -1, D) for x in (q, k, v))
    y = kernel(*flat, ends, ends, T, T, window_size=(-1 if window is None else window, 0), enable_gqa=k.shape[2] != H)
    return y.view(B, T, H, D)

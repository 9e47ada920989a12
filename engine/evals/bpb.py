"""Bits per byte: cross entropy that does not depend on the size of the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from engine.dist import ALONE, World
from engine.model.gpt import GPT


@torch.no_grad()
def bits_per_byte(model: GPT, batches: Iterable[tuple[Tensor, Tensor]], token_bytes: Tensor, *,
                  world: World = ALONE) -> float:
    """Sum of nats over ln 2 times the sum of bytes, over all targets that stand for bytes, on all ranks of `world`.

    batches: pairs (x, y), each (B, T); targets below 0 do not count. token_bytes: (V,) bytes of each token, 0 for
    special tokens, which do not count either. Infinity when there is no byte at all.
    """
    nats, n_bytes = 0.0, 0
    for x, y in batches:
        loss = model(x, y, loss_reduction="none")
        target = y.flatten()
        length = torch.where(target >= 0, token_bytes[target.clamp(min=0)], 0)
        nats += (loss * (length > 0)).sum().item()
        n_bytes += int(length.sum().item())
    nats, n_bytes = map(sum, zip(*world.gather((nats, n_bytes)), strict=True))
    return nats / (math.log(2) * n_bytes) if n_bytes else math.inf

"""Logits where somebody looks at them and nowhere else: evaluations score a few tokens of long rows."""

from __future__ import annotations

from torch import Tensor

from engine.model.gpt import GPT


def logits_at(model: GPT, idx: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """idx (B, T) -> logits (N, V) float32 at N places only, given as their rows (N,) and positions (N,)."""
    return model._logits(model._trunk(idx, None, False)[where])

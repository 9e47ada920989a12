"""From the logits of the next token to its id: greedy, temperature, top-k, top-p. Knows nothing of the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST = 512  # tokens that top-p looks at before it sorts the whole vocabulary


@dataclass(frozen=True)
class Sampling:
    """How to choose. Temperature 0 takes the likeliest token; top_k of None or 0 and top_p of None or 1 are off."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = 42  # None: a different one every time


class Sampler:
    """Draws from one stream of random numbers, which belongs to one request: same seed, same answer."""

    def __init__(self, sampling: Sampling, device: torch.device | str = "cpu") -> None:
        self.sampling = sampling
        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """logits (B, V) float32 -> ids (B,)."""
        s = self.sampling
        if s.temperature == 0:
            return logits.argmax(dim=-1)
        ids: Tensor | None = None
        if s.top_k and s.top_k < logits.shape[-1]:
            logits, ids = logits.topk(s.top_k, dim=-1)
        logits = logits / s.temperature
        if s.top_p is not None and s.top_p < 1:
            logits, order = _nucleus(logits, s.top_p)
            ids = order if ids is None else ids.gather(-1, order)
        choice = torch.multinomial(logits.softmax(dim=-1), 1, generator=self._generator)
        return (choice if ids is None else ids.gather(-1, choice)).squeeze(-1)


def _nucleus(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest of logits (B, V) and their places, descending; -inf after the fewest tokens whose probability
    together reaches `top_p`. Sorts all of them only where the first ones are not enough."""
    everything = logits.softmax(dim=-1)
    count = min(_FIRST, logits.shape[-1])
    probability, order = everything.topk(count, dim=-1)
    if count < logits.shape[-1] and bool((probability.sum(dim=-1) < top_p).any()):
        probability, order = everything.sort(dim=-1, descending=True)
    before = probability.cumsum(dim=-1) - probability
    return logits.gather(-1, order).masked_fill((before >= top_p) & (before > 0), -torch.inf), order

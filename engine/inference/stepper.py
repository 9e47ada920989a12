"""How a model reads tokens into a KV cache: many of one row, or one each of several rows that stand at any position.

Generation asks this and nothing else of a model, so that another way of computing the same (a native decode step) can
take PyTorch's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.inference.kv_cache import KVCache
from engine.inference.side_by_side import SideBySide
from engine.model.attention import Cache
from engine.model.gpt import GPT
from engine.model.layers import rms_norm
from engine.model.neighbours import state_behind

ShouldStop = Callable[[], bool]
PREFILL_CHUNK = 512  # tokens between two looks at should_stop while a long prompt is read


def never() -> bool:
    """For callers that have nobody who could ask them to stop."""
    return False


@torch.inference_mode()
def refresh_state(model: GPT, cache: KVCache) -> None:
    """Set what the model carries from token to token to what it is behind the cache's newest tokens.

    Needed where something else than the model filled or shortened the cache.
    """
    a = model.architecture
    if (a.smear or a.bigram) and cache.pos:
        ids = torch.tensor(cache.newest, device=model.device)[:, None]
        cache.state = state_behind(rms_norm(F.embedding(ids, model.transformer.wte.weight).to(model.dtype)), ids)


class Stepper(Protocol):
    """Reads tokens. Logits are float32 and may be overwritten by the next call."""

    def cache(self, max_len: int, batch_size: int = 1) -> KVCache:
        """An empty cache that fits this model."""
        ...

    def read(self, rows: Sequence[Sequence[int]], cache: KVCache, should_stop: ShouldStop = never) -> Tensor | None:
        """Read token ids, B rows of one length, behind what a cache of B rows holds: logits (B, V) after the last ones,
        or None if asked to stop meanwhile."""
        ...

    def step(self, tokens: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """Read tokens[i] into caches[i], each of one row and at its own position: logits (len(tokens), V).

        A cache that was in the last step and is not in this one keeps what it holds, but maybe no room for more.
        """
        ...


class TorchStepper:
    """The model's own forward pass."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self._side_by_side = SideBySide()

    def cache(self, max_len: int, batch_size: int = 1) -> KVCache:
        config = self.model.config
        return KVCache(batch_size, config.n_kv_head, max_len, config.head_dim, config.n_layer, self.model.device,
                       self.model.dtype)

    def read(self, rows: Sequence[Sequence[int]], cache: KVCache, should_stop: ShouldStop = never) -> Tensor | None:
        logits = None
        start = cache.pos
        for chunk in torch.tensor(rows, device=self.model.device).split(PREFILL_CHUNK, dim=1):
            logits = self.forward(chunk, cache)
            cache.newest = [ids[cache.pos - start - 1] for ids in rows]
            if should_stop():
                return None
        return logits

    def step(self, tokens: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        if len(caches) == 1:
            logits = self.read([[tokens[0]]], caches[0])
            assert logits is not None  # nobody asked to stop meanwhile
            return logits
        place = self._side_by_side.seat(caches)
        self._side_by_side.begin()
        ids = torch.tensor([[tokens[i]] for i in place], device=self.model.device)
        logits = self.forward(ids, self._side_by_side)
        for token, cache in zip(tokens, caches, strict=True):
            cache.newest = [token]
        if place == sorted(place):
            return logits
        row = {i: row for row, i in enumerate(place)}
        return logits[[row[i] for i in range(len(place))]]

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: Cache) -> Tensor:
        """ids (B, t) behind what the cache holds -> logits (B, V) after the last of them."""
        return self.model(ids, kv_cache=cache, last_only=True)[:, -1]

"""What a token takes from the one before it, ahead of the first layer: smear (2026-03) and hashed bigrams (2026-01).

While decoding, the previous token is in an earlier call, so its embedding or id is kept in the KV cache's `state`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.model.config import BIGRAM_ROWS_PER_TOKEN, SMEAR_CHANNELS
from engine.model.layers import Linear

_PREVIOUS_EMBEDDING, _PREVIOUS_ID = "previous_embedding", "previous_id"
_HASH_HERE, _HASH_BEFORE = 36_313, 27_191


def smear(x: Tensor, gate: Linear, amount: Tensor, state: dict[str, Tensor] | None) -> Tensor:
    """x (B, T, C) with a gated share of each predecessor added, which itself is taken unsmeared.

    `state` is a KV cache's; the first token of a sequence has no predecessor.
    """
    before = _shifted(x, state, _PREVIOUS_EMBEDDING)  # (B, T or T - 1, C)
    tail = x[:, x.shape[1] - before.shape[1] :]
    share = amount.to(x.dtype) * torch.sigmoid(gate(tail[..., :SMEAR_CHANNELS]))
    tail = tail + share * before
    return tail if tail.shape[1] == x.shape[1] else torch.cat((x[:, :1], tail), dim=1)


def _shifted(x: Tensor, state: dict[str, Tensor] | None, name: str) -> Tensor:
    """x (B, T, ...) one place later: what the call before left in front if it did, the last element dropped."""
    before = x[:, :-1]
    if state is None:
        return before
    if name in state:
        before = torch.cat((state[name], before), dim=1)
    state[name] = x[:, -1:]
    return before


def state_behind(embedding: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """What a KV cache's `state` holds behind tokens `ids` (B, 1), whose unsmeared embeddings are (B, 1, C)."""
    return {_PREVIOUS_EMBEDDING: embedding, _PREVIOUS_ID: ids}


class BigramEmbedding(nn.Module):
    """A vector per hashed pair of neighbouring tokens, (B, T) -> (B, T, C); its parameter is `bigram_embed.embed`."""

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(BIGRAM_ROWS_PER_TOKEN * vocab_size, n_embd)

    def forward(self, idx: Tensor, state: dict[str, Tensor] | None) -> Tensor:
        last = self.embed.num_embeddings - 1  # the row of a token without predecessor; all others hash below it
        before = _shifted(idx, state, _PREVIOUS_ID)
        here = idx[:, idx.shape[1] - before.shape[1] :]
        hashed = ((_HASH_HERE * here) ^ (_HASH_BEFORE * before)) % last
        if hashed.shape[1] < idx.shape[1]:
            hashed = torch.cat((torch.full_like(idx[:, :1], last), hashed), dim=1)
        return self.embed(hashed)

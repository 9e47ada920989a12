"""The keys and values of every token read so far, in one block of memory that is allocated once.

All rows are at the same position; sequences of different length have a cache each, and `side_by_side` puts them
together. Storage only: it knows nothing of the model that fills it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """k and v are (n_layer, B, K, max_len, D); `pos` counts the tokens that every layer has stored.

    `state` belongs to the model: tensors (B, ...) by name that are rewritten whole at every call, not by position.
    `newest` is the last token of every row, which whoever fills the cache notes.
    """

    def __init__(self, batch_size: int, n_kv_head: int, max_len: int, head_dim: int, n_layer: int,
                 device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        shape = (n_layer, batch_size, n_kv_head, max_len, head_dim)
        self.k = torch.empty(shape, device=device, dtype=dtype)
        self.v = torch.empty(shape, device=device, dtype=dtype)
        self.pos = 0
        self.state: dict[str, Tensor] = {}  # what else a model carries from token to token, each (B, ...)
        self.newest: list[int] = []
        self.lodging = False  # whether k and v are a part of somebody's larger block of memory, who may move this out

    @property
    def batch_size(self) -> int:
        return self.k.shape[1]

    @property
    def max_len(self) -> int:
        return self.k.shape[3]

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def insert(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v (B, K, t, D) at `pos`; returns views (B, K, pos + t, D) of all that this layer has stored."""
        end = self.pos + k.shape[2]
        if end > self.max_len:
            raise ValueError(f"the cache holds {self.max_len} tokens, {end} are needed")
        self.k[layer, :, :, self.pos : end] = k
        self.v[layer, :, :, self.pos : end] = v
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]

    def places(self, t: int) -> slice:
        """Where t new tokens stand."""
        return slice(self.pos, self.pos + t)

    def mask(self, t: int, window: int | None) -> Tensor | None:
        """(1, 1, t, pos + t) bool, true where token i of t new ones may look: all that is stored, then up to itself, or
        the last `window` tokens of that.

        None where the default is right: one new token sees everything, the first ones are in plain causal order.
        """
        if t == 1 or self.pos == 0:
            return None
        seen = torch.ones(t, self.pos + t, dtype=torch.bool, device=self.k.device).tril(self.pos)
        return (seen if window is None else seen.triu(self.pos - window))[None, None]

    def advance(self, t: int) -> None:
        """Count t tokens as stored; called once all layers have inserted them."""
        self.pos += t

    def rewind(self, pos: int, newest: int) -> None:
        """Stand behind the first `pos` tokens again, the last of which is `newest`, in a cache of one row."""
        self.pos, self.newest = pos, [newest]

    def move_out(self) -> None:
        """Keep what is stored in memory of its own, and room for nothing else."""
        self.k, self.v = (x[:, :, :, : self.pos].clone(memory_format=torch.contiguous_format) for x in (self.k, self.v))
        self.lodging = False

    def reset(self) -> None:
        """Forget everything and keep the memory."""
        self.pos = 0
        self.state.clear()
        self.newest = []

    def replicate(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """A cache of `batch_size` rows that all hold this one's single row, with room for `max_len` tokens."""
        if self.batch_size != 1:
            raise ValueError(f"only a cache of one row can be replicated, this one has {self.batch_size}")
        n_layer, _, n_kv_head, own_len, head_dim = self.k.shape
        wide = KVCache(batch_size, n_kv_head, max_len or own_len, head_dim, n_layer, self.k.device, self.k.dtype)
        wide.k[:, :, :, : self.pos] = self.k[:, :, :, : self.pos]
        wide.v[:, :, :, : self.pos] = self.v[:, :, :, : self.pos]
        wide.pos = self.pos
        wide.newest = self.newest * batch_size
        wide.state = {name: t.expand(batch_size, *t.shape[1:]).clone() for name, t in self.state.items()}
        return wide

"""Sequences of different length in one block of memory, so that one forward pass of the model reads a token into each.

Several `KVCache`s of one row become the rows of one tensor while they decode together; each stays usable by itself,
because its keys and values are then a view of its row. Storage only: it knows nothing of the model that fills it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.inference.kv_cache import KVCache

_PAD = 64  # positions that attention looks at are a multiple of this: kernels like that, and shapes change less often


class SideBySide:
    """The model's `Cache` for one new token in each of several sequences, at its own position.

    Memory is kept from step to step and grows with the most and the longest rows that were ever asked for.
    """

    def __init__(self) -> None:
        self._rows: list[KVCache] = []  # by row: k and v of each are views of it
        self._k = self._v = torch.empty(0, 0, 0, 0, 0)  # (n_layer, rows, K, length, D)
        self.pos = 0
        self.state: dict[str, Tensor] = {}

    def seat(self, caches: Sequence[KVCache]) -> list[int]:
        """Give each cache a row; the place in `caches` of every row. Whoever sat here and is not among them leaves."""
        wanted = set(caches)
        for cache in self._rows:
            if cache not in wanted:
                cache.move_out()
        self._make_room(caches)
        staying = {row: cache for row, cache in enumerate(self._rows[: len(caches)]) if cache in wanted}
        arriving = (cache for cache in caches if cache not in staying.values())
        self._rows = [staying.get(row) or self._sit(row, next(arriving)) for row in range(len(caches))]
        place = {cache: i for i, cache in enumerate(caches)}
        return [place[cache] for cache in self._rows]

    def begin(self) -> None:
        """Look at where the rows stand: called before the model reads the next tokens."""
        self.pos = max(cache.pos for cache in self._rows)
        names = set[str].intersection(*(set(cache.state) for cache in self._rows))
        self.state = {name: torch.cat([cache.state[name] for cache in self._rows]) for name in names}
        self._seen = _padded(self.pos + 1)
        self._at = torch.tensor([cache.pos for cache in self._rows], device=self._k.device)
        self._all = torch.arange(len(self._rows), device=self._k.device)
        self._masks: dict[int | None, Tensor] = {}

    def places(self, t: int) -> Tensor:
        """(B, 1): where each row's new token stands."""
        return self._at[:, None]

    def insert(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v (B, K, 1, D), each row's at its own position; views (B, K, length, D) of what all hold."""
        count = len(self._rows)
        self._k[layer, self._all, :, self._at] = k[:, :, 0]
        self._v[layer, self._all, :, self._at] = v[:, :, 0]
        return self._k[layer, :count, :, : self._seen], self._v[layer, :count, :, : self._seen]

    def mask(self, t: int, window: int | None) -> Tensor:
        """(B, 1, 1, length) bool: every row sees itself and what it holds, or the last `window` tokens of that."""
        if window not in self._masks:
            columns = torch.arange(self._seen, device=self._k.device)[None]
            seen = columns <= self._at[:, None]
            if window is not None:
                seen &= columns >= self._at[:, None] - window
            self._masks[window] = seen[:, None, None]
        return self._masks[window]

    def advance(self, t: int) -> None:
        """Count the token that every row has stored."""
        for row, cache in enumerate(self._rows):
            cache.pos += t
            cache.state = {name: carried[row : row + 1] for name, carried in self.state.items()}

    def _make_room(self, caches: Sequence[KVCache]) -> None:
        """Enough rows that are long enough; in new memory everybody has to be seated again."""
        rows, length = len(caches), _padded(max(max(cache.max_len, cache.pos + 1) for cache in caches))
        if length <= self._k.shape[3] and rows <= self._k.shape[1]:
            return
        n_layer, _, n_kv_head, _, head_dim = caches[0].k.shape
        shape = (n_layer, max(1 << (rows - 1).bit_length(), self._k.shape[1]), n_kv_head,
                 max(length, self._k.shape[3]), head_dim)
        self._k = caches[0].k.new_zeros(shape)  # zeros, since what nobody may see must be a number all the same
        self._v = torch.zeros_like(self._k)
        self._rows = []

    def _sit(self, row: int, cache: KVCache) -> KVCache:
        """Copy what a cache holds into a row and make it a view of that."""
        for whole, name in ((self._k, "k"), (self._v, "v")):
            view = whole[:, row : row + 1]
            view[:, :, :, : cache.pos] = getattr(cache, name)[:, :, :, : cache.pos]
            setattr(cache, name, view)
        cache.lodging = True
        return cache


def _padded(length: int) -> int:
    return -(-length // _PAD) * _PAD

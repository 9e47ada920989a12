"""Conversations as nanochat's first fine-tuning took them: one per row, padded to the longest of the batch.

Wasteful beside rows packed full, but each optimizer step then holds a known number of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.model.loss import IGNORE

Render = Callable[[int], tuple[list[int], list[int]]]


class PaddedConversations:
    """(x, y), each (B, longest - 1) int64, over `count` conversations in a shuffled order per epoch, for ever.

    Targets with mask 0, and padding, do not count. `start` is a `state()` to go on from.
    """

    def __init__(
        self,
        count: int,
        render: Render,
        batch_size: int,
        *,
        pad_id: int,
        seed: int = 42,
        start: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if count < 1:
            raise ValueError("no conversations to read")
        self.count, self.render, self.batch_size, self.device = count, render, batch_size, device
        self.pad_id, self.seed = pad_id, seed
        self._taken = int((start or {}).get("taken", 0))

    def state(self) -> dict[str, Any]:
        """How many conversations were handed out."""
        return {"taken": self._taken}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            rows = [self._next() for _ in range(self.batch_size)]
            longest = max(max(len(ids) for ids, _ in rows), 2)
            ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.int64)
            counts = torch.zeros(len(rows), longest, dtype=torch.bool)
            for n, (row, mask) in enumerate(rows):
                ids[n, : len(row)] = torch.tensor(row)
                counts[n, : len(row)] = torch.tensor(mask, dtype=torch.bool)
            y = torch.where(counts[:, 1:], ids[:, 1:], IGNORE)
            yield ids[:, :-1].contiguous().to(self.device), y.to(self.device)

    def _next(self) -> tuple[list[int], list[int]]:
        epoch, place = divmod(self._taken, self.count)
        self._taken += 1
        return self.render(int(self._order(epoch)[place]))

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._permutation

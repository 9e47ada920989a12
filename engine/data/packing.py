"""Conversations as rows of T + 1 tokens, each row a few whole conversations and then padding.

Best fit, as nanochat packs its fine-tuning data: of the next 100 conversations take the longest that still fits; when
none does, pad. Padding never counts in the loss; in fine-tuning neither do the words of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.model.gpt import IGNORE

LOOK_AHEAD = 100

Render = Callable[[int], tuple[list[int], list[int]]]


class ConversationBatches:
    """(x, y), each (B, T) int64, over `count` conversations in a shuffled order per epoch, for ever.

    `render(i)` gives the token ids of conversation i and their mask, at most T + 1 of them. With `supervise_all` every
    token is a target, else those with mask 1. `start` is a `state()` to go on from.
    """

    def __init__(
        self,
        count: int,
        render: Render,
        batch_size: int,
        seq_len: int,
        *,
        pad_id: int,
        supervise_all: bool,
        seed: int = 42,
        start: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if count < 1:
            raise ValueError("no conversations to read")
        self.count, self.render, self.shape, self.device = count, render, (batch_size, seq_len), device
        self.pad_id, self.supervise_all, self.seed = pad_id, supervise_all, seed
        self._state: dict[str, Any] = {"epoch": 0, "cursor": 0, "buffer": [], **(start or {})}

    def state(self) -> dict[str, Any]:
        """Epoch, place in its order, and the conversations that were looked at but not used yet."""
        return {**self._state, "buffer": list(self._state["buffer"])}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        B, T = self.shape
        order = self._order()
        buffer = [(i, *self.render(i)) for i in self._state["buffer"]]
        while True:
            rows = [self._fill_row(buffer, order, T + 1) for _ in range(B)]
            self._state["buffer"] = [i for i, _, _ in buffer]
            ids = torch.tensor([row for row, _ in rows], dtype=torch.int64)
            counts = torch.tensor([mask for _, mask in rows], dtype=torch.bool)
            y = torch.where(counts[:, 1:], ids[:, 1:], IGNORE)
            yield ids[:, :-1].contiguous().to(self.device), y.to(self.device)

    def _fill_row(
        self, buffer: list[tuple[int, list[int], list[int]]], order: Iterator[int], room: int
    ) -> tuple[list[int], list[int]]:
        """One row of exactly `room` ids and their loss mask; takes conversations out of `buffer`, which it refills."""
        ids: list[int] = []
        mask: list[int] = []
        while len(ids) < room:
            while len(buffer) < min(LOOK_AHEAD, self.count):
                i = next(order)
                buffer.append((i, *self.render(i)))
            left = room - len(ids)
            fitting = [n for n, (_, tokens, _) in enumerate(buffer) if len(tokens) <= left]
            if not fitting:
                ids += [self.pad_id] * left
                mask += [0] * left
                break
            _, tokens, supervised = buffer.pop(max(fitting, key=lambda n: len(buffer[n][1])))
            ids += tokens
            mask += [1] * len(tokens) if self.supervise_all else supervised
        return ids, mask

    def _order(self) -> Iterator[int]:
        """Conversation numbers, a new permutation per epoch; keeps `_state` at the next one to hand out."""
        while True:
            permutation = np.random.default_rng([self.seed, self._state["epoch"]]).permutation(self.count)
            while self._state["cursor"] < self.count:
                i = int(permutation[self._state["cursor"]])
                self._state["cursor"] += 1
                yield i
            self._state["epoch"] += 1
            self._state["cursor"] = 0

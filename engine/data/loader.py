"""Training text as batches of tokens on the device: read, encoded and packed ahead on a thread of its own.

A resumed run sees the very batches that an unbroken one would have seen, whatever was made ahead: the state goes with
the batch that was handed out. How documents become rows is `engine.data.text_packing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data.prefetch import prefetch
from engine.data.row_groups import Encoder, RowGroups
from engine.data.text_packing import LOOK_AHEAD, PACKINGS, STREAM, State, best_fit, portable, stream

AHEAD = 2  # batches made ahead: one that waits and one under way


class TextBatches:
    """(x, y), each (B, T) int64, from the `text` column of parquet files, for ever; y is x one token later.

    Rank r of `world` reads row groups r, r + world, ... of each file. `start` is a `state()` to go on from, `packing`
    one of `PACKINGS`.
    """

    def __init__(
        self,
        files: Sequence[Path],
        tokenizer: Encoder,
        batch_size: int,
        seq_len: int,
        *,
        rank: int = 0,
        world: int = 1,
        start: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        packing: str = STREAM,
        look_ahead: int = LOOK_AHEAD,
        ahead: int = AHEAD,
    ) -> None:
        if packing not in PACKINGS:
            raise ValueError(f"packing {packing!r} is none of {', '.join(PACKINGS)}")
        self.groups = RowGroups(files, tokenizer, rank, world)
        self.device, self.shape, self.packing = torch.device(device), (batch_size, seq_len), packing
        self.look_ahead, self.ahead = look_ahead, ahead
        self._state: State | None = start

    def state(self) -> dict[str, Any]:
        """What to go on from: plain JSON values."""
        if self._state is None:
            first = vars(self.groups.first())
            return {**first, "offset": 0} if self.packing == STREAM else {**first, "row": 0, "buffer": []}
        return portable(self._state)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = None if self._state is None else portable(self._state)
        if self.device.type == "cuda" and self.device.index is None:  # a new thread would take the first GPU for it
            self.device = torch.device("cuda", torch.cuda.current_device())
        made = self._made(start)
        for x, y, state in prefetch(made, self.ahead) if self.ahead else made:
            self._state = state
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def _made(self, start: State | None) -> Iterator[tuple[Tensor, Tensor, State]]:
        """Batches in this machine's memory, for a GPU in pages that it can fetch by itself."""
        B, T = self.shape
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.packing == STREAM:
            packed = stream(self.groups, B, T, start)
        else:
            packed = best_fit(self.groups, B, T, start, self.look_ahead)
        for rows, state in packed:
            if self.packing == STREAM:
                inputs, targets = rows[:-1].reshape(B, T), rows[1:].reshape(B, T)
            else:  # copied by numpy: torch would wake all its threads for it
                inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
            x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
            if self.device.type == "cuda":
                x, y = x.pin_memory(), y.pin_memory()
            yield x, y, state

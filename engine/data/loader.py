"""Training text as batches of tokens: parquet row groups, tokenised in order, cut into rows without a gap.

The packing is that of nanochat's seed: documents, each behind a <|bos|>, form one endless stream; a batch takes
B·T + 1 tokens of it, and the last one is only a target. Unlike there, the position is exact to the token, so a resumed
run sees the very batches that an unbroken one would have seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor


class Encoder(Protocol):
    """What the loaders need of a tokenizer."""

    def get_bos_token_id(self) -> int: ...

    def encode(self, text: list[str], prepend: int) -> list[list[int]]: ...


class TextBatches:
    """(x, y), each (B, T) int64, from the `text` column of parquet files, for ever; y is x one token later.

    Rank r of `world` reads row groups r, r + world, ... of each file. `start` is a `state()` to go on from.
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
    ) -> None:
        if not files:
            raise ValueError("no parquet files to read")
        self.files, self.tokenizer, self.device = list(files), tokenizer, device
        self.shape, self.rank, self.world = (batch_size, seq_len), rank, world
        self._where = {"pq_idx": 0, "rg_idx": rank, "offset": 0, "epoch": 1, **(start or {})}

    def state(self) -> dict[str, Any]:
        """Row group and token offset of the first token not handed out yet."""
        return dict(self._where)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        B, T = self.shape
        pending: deque[tuple[dict[str, Any], np.ndarray]] = deque()  # row groups not used up, with their positions
        groups = self._row_groups()
        while True:
            while sum(len(ids) for _, ids in pending) < B * T + 1:
                pending.append(next(groups))
            flat = np.concatenate([self._take(pending, n) for n in self._shares(pending, B * T + 1)])
            ids = torch.from_numpy(flat).to(self.device)
            yield ids[:-1].view(B, T), ids[1:].view(B, T)

    @staticmethod
    def _shares(pending: deque[tuple[dict[str, Any], np.ndarray]], need: int) -> list[int]:
        """How many tokens to take of each pending row group, in order, to get `need`."""
        shares: list[int] = []
        for _, ids in pending:
            shares.append(min(need - sum(shares), len(ids)))
        return [n for n in shares if n]

    def _take(self, pending: deque[tuple[dict[str, Any], np.ndarray]], n: int) -> np.ndarray:
        where, ids = pending.popleft()
        rest = {**where, "offset": where["offset"] + n}
        if n < len(ids):
            pending.appendleft((rest, ids[n:]))
        self._where = rest
        return ids[:n]

    def _row_groups(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Token ids (int64) of one row group after another, from the current position on."""
        pq_idx, rg_idx, epoch = self._where["pq_idx"], self._where["rg_idx"], self._where["epoch"]
        skip = self._where["offset"]
        while True:
            file = pq.ParquetFile(self.files[pq_idx])
            while rg_idx < file.num_row_groups:
                ids = self._encode(file.read_row_group(rg_idx, columns=["text"]).column("text").to_pylist())
                yield {"pq_idx": pq_idx, "rg_idx": rg_idx, "offset": skip, "epoch": epoch}, ids[skip:]
                rg_idx, skip = rg_idx + self.world, 0
            pq_idx, rg_idx = pq_idx + 1, self.rank
            if pq_idx == len(self.files):
                pq_idx, epoch = 0, epoch + 1

    def _encode(self, documents: list[str]) -> np.ndarray:
        rows = self.tokenizer.encode(documents, prepend=self.tokenizer.get_bos_token_id())
        return np.fromiter((i for row in rows for i in row), dtype=np.int64, count=sum(map(len, rows)))

"""The text of parquet shards as token ids, one row group after another, for ever, shared out over ranks.

Rank r of W reads row groups r, r + W, ... of each file, then of the next file; behind the last file a new epoch begins.
How documents become rows of a batch is not known here (`engine.data.text_packing`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from engine.context import StageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_THREADS = 4  # per rank: as many as nanochat gives its tokenizer


class Encoder(Protocol):
    """What the loaders need of a tokenizer."""

    def get_bos_token_id(self) -> int: ...

    def encode_flat(
        self, texts: list[str], prepend: int | str | None = None, append: int | str | None = None,
        num_threads: int | None = None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...


@dataclass(frozen=True)
class Place:
    """A row group: number of the file, number in the file; epochs count from 1."""

    pq_idx: int
    rg_idx: int
    epoch: int


@dataclass(frozen=True)
class Group:
    """The documents of a row group, each behind a bos: document i is ids[offsets[i]:offsets[i + 1]]."""

    place: Place
    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]


class RowGroups:
    """Reads and encodes row groups; a file is opened once per turn."""

    def __init__(self, files: Sequence[Path], tokenizer: Encoder, rank: int, world: int) -> None:
        if not files:
            raise ValueError("no parquet files to read")
        self.files, self.tokenizer, self.rank, self.world = list(files), tokenizer, rank, world
        self._threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // world))
        self._open: tuple[int, pq.ParquetFile] | None = None

    def first(self) -> Place:
        """Where this rank begins."""
        return Place(0, self.rank, 1)

    def from_place(self, place: Place) -> Iterator[Group]:
        """This group and all behind it. Raises StageError when no file has a row group for this rank."""
        pq_idx, rg_idx, epoch = place.pq_idx, place.rg_idx, place.epoch
        empty = 0
        while empty <= len(self.files):
            file = self._file(pq_idx)
            empty += 1
            while rg_idx < file.num_row_groups:
                yield self.read(Place(pq_idx, rg_idx, epoch))
                rg_idx, empty = rg_idx + self.world, 0
            pq_idx, rg_idx = pq_idx + 1, self.rank
            if pq_idx == len(self.files):
                pq_idx, epoch = 0, epoch + 1
        raise StageError(f"rank {self.rank} of {self.world} finds no row group of its own in {len(self.files)} shards",
                         "use fewer processes, or more text", "data")

    def read(self, place: Place) -> Group:
        """One row group. Raises StageError naming the file when it cannot be read."""
        return Group(place, *self._encode(self._texts(place)))

    def read_rows(self, place: Place, rows: Sequence[int]) -> list[npt.NDArray[np.uint32]]:
        """The ids of some documents of a row group; the others are not encoded."""
        ids, offsets = self._encode(self._texts(place).take(rows))
        return [ids[first:end].copy() for first, end in pairwise(offsets)]

    def _texts(self, place: Place) -> pa.ChunkedArray:
        try:
            return self._file(place.pq_idx).read_row_group(place.rg_idx, columns=["text"]).column("text")
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise StageError(f"{self.files[place.pq_idx]}: row group {place.rg_idx} is not readable: {error}",
                             "delete the file and run the dataset stage again", "data") from error

    def _encode(self, texts: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        bos = self.tokenizer.get_bos_token_id()
        return self.tokenizer.encode_flat(texts.to_pylist(), bos, num_threads=self._threads)

    def _file(self, pq_idx: int) -> pq.ParquetFile:
        if pq_idx >= len(self.files):
            raise StageError(f"the place to go on from is in shard {pq_idx + 1}, and there are {len(self.files)}",
                             "bring back the shards that the checkpoint is of, or start the stage anew", "data")
        if self._open is None or self._open[0] != pq_idx:
            self._open = (pq_idx, pq.ParquetFile(self.files[pq_idx]))
        return self._open[1]

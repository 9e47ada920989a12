"""One rank's share of a stream of batches that every rank reads whole.

Batch n belongs to rank n mod world. All ranks are at the same place, so a checkpoint has one position for all of them
and a resumed run may have another number of ranks; the batches of an optimizer step are those that one process takes.
For conversations, which are cheap to read; text is divided by row group where it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from engine.dist import World


class Batches(Protocol):
    """An endless stream of (x, y), each (B, T) int64, that knows where it is."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def state(self) -> dict[str, Any]:
        """Where to go on after the batches handed out so far; plain JSON."""
        ...


class RankView:
    """The batches of one rank. `state()` is right after each rank has taken equally many."""

    def __init__(self, batches: Batches, world: World) -> None:
        self.batches, self.world = batches, world

    def state(self) -> dict[str, Any]:
        return self.batches.state()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream = iter(self.batches)
        while True:
            turn = list(islice(stream, self.world.size))
            yield turn[self.world.rank]

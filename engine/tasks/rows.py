"""A task whose rows are a table: read when the first row is asked for, in the order that seed 42 gives.

That order is numpy's permutation, which is what the datasets library's shuffle makes of the same seed, so row i here
is row i of nanochat's task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from engine.context import StageError
from engine.data.download import Log
from engine.rundir import shared_base
from engine.tasks.hub_parquet import HubSplit, table
from engine.tasks.task import Problem, Task

if TYPE_CHECKING:
    import pyarrow as pa

SHUFFLE_SEED = 42
_LOOK_AT = 4096  # rows in memory at a time while looking which are usable


class HubTask(Task):
    """Rows of one split of a Hub dataset. Subclasses name the columns and turn a row into a problem."""

    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, split: HubSplit, base: Path, *, log: Log = print, start: int = 0,
                 stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.name, self.split, self.base, self.log = name, split, shared_base(base), log

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        raise NotImplementedError

    def usable(self, rows: Iterable[Mapping[str, Any]]) -> list[int] | None:
        """Numbers of the rows that make a conversation; None: all of them, without looking."""
        return None

    def num_rows(self) -> int:
        return len(self._order)

    def row(self, i: int) -> Problem:
        number = int(self._order[i])
        row = {name: self._table.column(name)[number].as_py() for name in self.columns}
        try:
            return self.problem_of(row)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise StageError(f"{self.split}: row {number} is not what {self.name} expects: "
                             f"{type(error).__name__}: {error}", "the dataset may have changed its columns",
                             "data") from error

    @cached_property
    def _table(self) -> pa.Table:
        return table(self.split, self.base, list(self.columns), log=self.log)

    @cached_property
    def _order(self) -> np.ndarray:
        """Row numbers in the order of the task."""
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(self._table))
        kept = self.usable(row for batch in self._table.to_batches(_LOOK_AT) for row in batch.to_pylist())
        return order if kept is None else order[np.isin(order, kept)]

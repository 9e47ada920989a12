"""Sequences of one model that advance together, one token each per step; any may join or leave between two steps.

`Rows` is what a worker needs. `InterleavedRows` does it with the engine's one-row generation, a token of each in turn:
nobody waits for another's whole answer. Where the device gains from it, a decode batch computes them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Protocol

from engine.inference.generate import Engine, ShouldStop, Step
from engine.inference.sampling import Sampling


class Rows(Protocol):
    """Keys are the caller's. `remove` may be called with a key that is gone."""

    def add(self, key: int, prompt_ids: Sequence[int], sampling: Sampling, limit: int,
            should_stop: ShouldStop) -> None: ...

    def step(self) -> list[tuple[int, int | None]]: ...

    def remove(self, key: int) -> None: ...


class InterleavedRows:
    """Every row a generation of its own; `step` gives (key, token), or (key, None) for one that has no more."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: dict[int, Iterator[Step]] = {}

    def add(self, key: int, prompt_ids: Sequence[int], sampling: Sampling, limit: int,
            should_stop: ShouldStop) -> None:
        """The prompt is read at the next step; `should_stop` is asked while a long one is."""
        self._rows[key] = self._engine.generate(prompt_ids, max_tokens=limit, should_stop=should_stop,
                                                **asdict(sampling))

    def step(self) -> list[tuple[int, int | None]]:
        return [(key, self._next(row)) for key, row in list(self._rows.items())]

    def _next(self, row: Iterator[Step]) -> int | None:
        step = next(row, None)
        return step[0][0] if step else None

    def remove(self, key: int) -> None:
        self._rows.pop(key, None)

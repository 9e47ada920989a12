"""Three phases of a sharded optimizer step, so that transfers and arithmetic overlap.

Each unit of work is a generator that starts a transfer, yields its handle, and goes on when the transfer is done. All
gradients are on their way before the first update is computed, and all weights before the first is awaited.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

Unit = Generator[Any, None, None]


def run(units: Iterable[Unit]) -> None:
    """Drive every unit to its end, one transfer of each at a time."""
    under_way = _started(units)
    while under_way:
        going_on = []
        for unit, handle in under_way:
            handle.wait()
            going_on += _started([unit])
        under_way = going_on


def _started(units: Iterable[Unit]) -> list[tuple[Unit, Any]]:
    """Each unit driven to its next transfer, with that; without the units that have ended."""
    return [(unit, handle) for unit in units if (handle := next(unit, None)) is not None]

"""Report cards of several runs side by side: the same results by name, and which run does better in each.

Pure: it is given what the run log knows. Screens and verbs only draw what comes out of here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from console.glance import Side

_TOTALS = ("core_metric", "chatcore_metric")
_LOW_IS_BETTER = ("bpb", "loss", "seconds")


@dataclass(frozen=True)
class Compared:
    """One result. `values` are in the order of the runs, None where a run has none."""

    name: str
    values: tuple[float | None, ...]
    low_is_better: bool

    @property
    def best(self) -> int | None:
        """Which run does best; None when they are alike or only one has a value."""
        known = [(value, number) for number, value in enumerate(self.values) if value is not None]
        if len({value for value, _ in known}) < 2:
            return None
        return (min if self.low_is_better else max)(known)[1]

    @property
    def difference(self) -> float | None:
        """The second run's value less the first's."""
        first, second = self.values[:2] if len(self.values) > 1 else (None, None)
        return None if first is None or second is None else second - first


def results(side: Side) -> dict[str, float]:
    """A run's newest results by name: totals, tasks, the best bits per byte of each stage, and how long each took."""
    found: dict[str, float] = {}
    for result in side.evals:
        found.update({name: float(value) for name, value in result.values.items()
                      if ("/" in name or name in _TOTALS) and _finite(value)})
    kinds = {stage.id: stage.stage for stage in side.stages}
    for name in ("val_bpb", "val_loss"):
        for stage_id, kind in kinds.items():
            measured = [e.values[name] for e in side.evals if e.stage == stage_id and _finite(e.values.get(name))]
            if measured:
                found[f"{kind} {name.replace('_', ' ')}"] = float(min(measured))
    found.update({f"{stage.stage} seconds": stage.seconds for stage in side.stages if stage.seconds})
    return found


def compare(sides: Sequence[Side]) -> list[Compared]:
    """Every result that at least one run has, in the order in which the first run that has it came to it."""
    found = [results(side) for side in sides]
    names = list(dict.fromkeys(name for each in found for name in each))
    names.sort(key=lambda name: (name.endswith(" seconds"), name.endswith((" bpb", " loss")), name not in _TOTALS))
    return [Compared(name, tuple(each.get(name) for each in found), name.endswith(_LOW_IS_BETTER)) for name in names]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

"""Numbers on the command line that count something: dollars, hours, seconds. Neither negative nor "nan" nor endless.

A budget of nan would be no budget: nothing is ever more than it.
"""

from __future__ import annotations

import math
from typing import Any

import click


class Amount(click.FloatRange):
    """A finite number of at least 0; with `positive`, above 0."""

    def __init__(self, *, positive: bool = False) -> None:
        super().__init__(min=0, min_open=positive)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no amount.", param, ctx)
        return found

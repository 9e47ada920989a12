"""JSON as every reader understands it: NaN and infinities, which JSON lacks, are written as their names.

`engine.events` writes them the same way, so a value looks the same in a run folder, in the run log and in `--json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dump(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON; compact without `indent`."""
    separators = (",", ":") if indent is None else None
    try:
        return json.dumps(value, separators=separators, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError:
        return json.dumps(_named(value), separators=separators, indent=indent, allow_nan=False, ensure_ascii=False)


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(item) for item in value]
    return value


def revive(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping with named non-finite numbers turned back into numbers, one level deep."""
    return {key: _NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in values.items()}

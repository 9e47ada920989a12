"""TOML with line numbers: the parser of the standard library has none, and a person needs them.

The parser itself is asked where each statement ends, so this file knows almost nothing of TOML's grammar, and nothing
of recipes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "line_numbers", "loads"]


def line_numbers(text: str) -> dict[tuple[str | int, ...], int]:
    """Where each key of a valid TOML text begins: ("title",) -> 1, ("stage", 0) -> 5, ("stage", 0, "depth") -> 7.

    A statement is the fewest lines that parse by themselves, so the TOML parser itself decides where strings and
    arrays that run over several lines end.
    """
    lines: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    for number, statement in _statements(text):
        parsed = loads(statement)
        if not parsed:
            continue
        path = _first_path(parsed)
        if statement.lstrip().startswith("["):
            if path[-1] == 0:  # [[name]]: the next of its kind
                path = (*path[:-1], sum(1 for known in lines if known[:-1] == path[:-1]))
            table = path
        else:
            path = table + path
        for depth in range(len(table) or 1, len(path) + 1):
            lines.setdefault(path[:depth], number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    start, held = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        held += line + "\n"
        try:
            loads(held)
        except TOMLDecodeError:
            continue
        yield start, held
        start, held = number + 1, ""


def _first_path(parsed: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The one path that a statement names: {"a": {"b": 1}} -> ("a", "b"), {"stage": [{}]} -> ("stage", 0)."""
    path: tuple[str | int, ...] = ()
    value: Any = parsed
    while True:
        if isinstance(value, dict) and value:
            key = next(iter(value))
            path, value = (*path, key), value[key]
        elif value == [{}]:
            return (*path, 0)
        else:
            return path

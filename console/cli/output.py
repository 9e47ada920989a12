"""How verbs print: facts to stdout, commentary to stderr, JSON for any program, text that cannot harm a terminal."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import click

from console.jsontext import dump
from console.text import clean

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Adds `--json` to a verb."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def emit_json(value: Any) -> None:
    """One object on stdout, ASCII only, so that no terminal is told anything by a string in it."""
    click.echo(_ascii(dump(plain(value), indent=2)))


def emit_json_line(value: Any) -> None:
    click.echo(_ascii(dump(plain(value))))


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """As JSON writes it; DEL is the one control character that JSON lets through."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def plain(value: Any) -> Any:
    """Records, enums and paths as JSON has them."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def line(text: str = "") -> None:
    """One line of data on stdout."""
    click.echo(clean(text))


def note(text: str) -> None:
    """Commentary on stderr."""
    click.echo(clean(text), err=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns aligned with spaces; whole, never cut to the terminal's width."""
    cells = [[clean(_cell(value)).replace("\n", " ").replace("\t", " ") for value in row] for row in rows]
    widths = [max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    for row in [list(headers), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def when(t: float | None) -> str:
    return "-" if t is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))


def duration(seconds: float | None) -> str:
    """1 h 02 m, 4 m 05 s, 12.3 s."""
    if seconds is None:
        return "-"
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} m"
    if seconds >= 60:
        return f"{seconds // 60:.0f} m {seconds % 60 // 1:02.0f} s"
    return f"{seconds:.1f} s"

"""How one line of a log looks: what it is about, where it breaks, which parts match. Pure text, no widget."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

_TONES = (
    ("error", re.compile(r"\b(error|exception|traceback|fatal|failed|nan|killed)\b", re.IGNORECASE)),
    ("warning", re.compile(r"\bwarn(ing)?\b", re.IGNORECASE)),
    ("accent", re.compile(r"\b(val(idation)?[ _/]?bpb|saved|checkpoint|finished|done)\b", re.IGNORECASE)),
)


def tone_of(text: str) -> str:
    """error | warning | accent, or '' for a line like any other."""
    return next((tone for tone, pattern in _TONES if pattern.search(text)), "")


def wrapped(text: str, width: int) -> list[str]:
    """The line as rows of at most `width` cells, at least one."""
    width = max(width, 1)
    if text.isascii():
        return [text[i:i + width] for i in range(0, len(text), width)] or [""]
    rows, row, used = [], "", 0
    for char in text:
        cells = cell_len(char)
        if used + cells > width and row:
            rows.append(row)
            row, used = "", 0
        row, used = row + char, used + cells
    return [*rows, row]


def parts(text: str, pattern: re.Pattern[str] | None) -> Iterator[tuple[str, bool]]:
    """(piece, does it match) from left to right; matches of nothing are none."""
    at = 0
    for match in pattern.finditer(text) if pattern is not None else ():
        if match.end() > match.start():
            yield text[at:match.start()], False
            yield match[0], True
            at = match.end()
    yield text[at:], False

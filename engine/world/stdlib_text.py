"""A second kind of text that every machine has: the source of the running Python's own standard library, in pieces.

Which files are validation is decided by their name, so no piece of a validation file is ever trained on.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from random import Random

from engine.world.phrasing import split_of

PIECE_CHARS = 700
_PACKAGES = ("json", "email", "http", "collections", "concurrent", "importlib", "logging", "unittest", "urllib", "xml",
             "asyncio")


def source_files(split: str) -> list[Path]:
    """The library's source files of `split`; empty where an interpreter comes without its sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [*root.glob("*.py"), *(path for package in _PACKAGES for path in (root / package).glob("*.py"))]
    wanted = ("val",) if split == "val" else ("train", "test")
    return sorted(path for path in found if split_of(f"stdlib|{path.relative_to(root).as_posix()}") in wanted)


def pieces(seed: int, split: str, chars: int) -> Iterator[str]:
    """Different pieces of source, whole lines each, until about `chars` characters were given."""
    files = source_files(split)
    Random(f"{seed}|stdlib|{split}").shuffle(files)
    seen: set[str] = set()
    given = 0
    for path in files:
        for piece in _cut(path.read_text(encoding="utf-8", errors="replace")):
            if given >= chars:
                return
            if piece.isascii() and piece not in seen:
                seen.add(piece)
                given += len(piece)
                yield piece


def _cut(source: str) -> Iterator[str]:
    """Runs of whole lines of about PIECE_CHARS characters."""
    lines: list[str] = []
    size = 0
    for line in source.splitlines():
        lines.append(line.rstrip())
        size += len(line) + 1
        if size >= PIECE_CHARS:
            yield "\n".join(lines).strip("\n")
            lines, size = [], 0
    if size > 40:
        yield "\n".join(lines).strip("\n")

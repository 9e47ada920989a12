"""How much code this is: the report counts it, as nanochat's does, so that growth is seen.

Counts what is there to be read, in the program's own folders; a token is taken for four characters.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("console", "engine", "remote", "rustbpe")
SUFFIXES = frozenset({".py", ".pyi", ".rs", ".md", ".toml", ".html", ".sh", ".tcss"})
_SKIPPED = frozenset({"target", "__pycache__", "node_modules"})
_MAX_BYTES = 1 << 20  # a larger file is no source


def code_size(root: Path) -> dict[str, int]:
    """Characters, lines, files and tokens of the sources below `root`; lines of the lock file where there is one."""
    files = [path for folder in FOLDERS for path in _sources(root / folder)]
    if (root / "pyproject.toml").is_file():  # a checkout, not an installed package among others
        files += [path for path in sorted(root.iterdir()) if path.is_file() and path.suffix in SUFFIXES]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    characters = sum(map(len, texts))
    found = {"Characters": characters, "Lines": sum(text.count("\n") for text in texts), "Files": len(files),
             "Tokens (approx.)": characters // 4}
    lock = root / "uv.lock"
    if lock.is_file():
        found["Dependencies (uv.lock lines)"] = lock.read_bytes().count(b"\n")
    return found


def _sources(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and path.is_file()
            and not _SKIPPED & set(path.relative_to(folder).parts) and path.stat().st_size <= _MAX_BYTES]

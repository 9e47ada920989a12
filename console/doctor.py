"""What could keep a run or a chat from working here, found before it does; each finding says what to do.

Facts only: no screen, no colours. It imports no tensor library: versions are read from what is installed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from console.errors import ConsoleError
from console.paths import Home
from console.runlog.db import damage
from console.settings import load
from engine import machine
from engine.catalog import list_models
from engine.recipe import list_recipes
from engine.rundir import base_dir, runs_dir

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_LOW_DISK_GB, _LOW_MEMORY_GB = 2.0, 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the report. `level`: ok | warning | problem; only problems make doctor fail."""

    level: str
    name: str
    text: str
    next: str = ""


def examine(home: Home, owner: str = "") -> Iterator[Finding]:
    """Every finding, cheap ones first. `owner` says who else has the run log open."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions, _computing, _memory, lambda: _folders(home), lambda: _owner(owner), lambda: _settings(home),
        lambda: _databases(home), lambda: _recipes(home), _models, _terminal)
    for check in checks:
        yield from check()


def _versions() -> Iterator[Finding]:
    ours = machine.version_of("llmconsole") or "not installed"
    yield Finding(OK, "version", f"llmconsole {ours}, Python {sys.version.split()[0]}, {sys.platform}")
    torch = machine.version_of("torch")
    if torch is None:
        yield Finding(PROBLEM, "torch", "not installed, so nothing can be trained or talked to", "pip install torch")
    else:
        yield Finding(OK, "torch", f"torch {torch}")


def _computing() -> Iterator[Finding]:
    gpus = machine.gpus()
    found = ", ".join(gpu.name for gpu in gpus) if gpus else "no NVIDIA GPU: the CPU trains, fine for tiny"
    yield Finding(OK, "compute", f"{machine.cpu_model()}, {machine.cores()} cores; {found}")


def _memory() -> Iterator[Finding]:
    facts = machine.facts(base_dir())
    free, total = facts["mem_free_gb"], facts["mem_total_gb"]
    low = free < _LOW_MEMORY_GB
    yield Finding(WARNING if low else OK, "memory", f"{free:.1f} GB free of {total:.1f}",
                  "close something: the tiny recipe wants about 2 GB" if low else "")


def _folders(home: Home) -> Iterator[Finding]:
    base = base_dir()
    for name, path, variable in (("home", home.path, "LLMCONSOLE_HOME"), ("base", base, "NANOCHAT_BASE_DIR")):
        reason = _unwritable(path)
        yield Finding(PROBLEM if reason else OK, name, f"{path}" + (f" cannot be written: {reason}" if reason else ""),
                      f"make room or give it back to you, or point {variable} elsewhere" if reason else "")
    free = machine.disk_free_gb(base)
    low = free < _LOW_DISK_GB
    yield Finding(WARNING if low else OK, "disk", f"{free:.1f} GB free for runs",
                  "free some space, or point NANOCHAT_BASE_DIR to a larger disk" if low else "")


def _unwritable(path: Path) -> str:
    """Why nothing can be written there, '' when it can; a folder that is not there yet is tried at its parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path) as f:
            f.write(bytes(1 << 16))
            f.flush()
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _owner(owner: str) -> Iterator[Finding]:
    if owner:
        yield Finding(OK, "owner", f"the run log is open in {owner}; this command only reads")


def _settings(home: Home) -> Iterator[Finding]:
    try:
        load(home.config)
    except ConsoleError as error:
        yield Finding(PROBLEM, "settings", str(error), error.next)
    else:
        yield Finding(OK, "settings", str(home.config) if home.config.exists() else "defaults; there is no config.toml")


def _databases(home: Home) -> Iterator[Finding]:
    for path in (home.runlog, home.ledger):
        if path.exists():
            yield _examined(path)


def _examined(path: Path) -> Finding:
    try:
        reason = damage(path, thorough=True)
    except sqlite3.OperationalError as error:
        return Finding(PROBLEM, path.name, f"cannot be read now: {error}", "free some space, or give it back to you")
    return Finding(PROBLEM if reason else OK, path.name, f"damaged: {reason}" if reason else "whole",
                   "the next start sets it aside and rebuilds what it can" if reason else "")


def _recipes(home: Home) -> Iterator[Finding]:
    usable, broken = list_recipes([home.recipes])
    yield Finding(OK if usable else PROBLEM, "recipes", ", ".join(recipe.name for recipe in usable) or "none is usable")
    for error in broken:
        yield Finding(PROBLEM, "recipes", str(error), "correct the file, or remove it")


def _models() -> Iterator[Finding]:
    models = list_models(base_dir())
    unusable = [m for m in models if m.problem]
    yield Finding(WARNING if unusable else OK, "models", f"{len(models) - len(unusable)} usable" +
                  (f", {len(unusable)} not: {unusable[0].ref}: {unusable[0].problem}" if unusable else ""))
    orphans = [p.name for p in _run_folders() if not (p / "run.json").exists()]
    if orphans:
        yield Finding(WARNING, "runs", f"{len(orphans)} folders below {runs_dir(base_dir())} have no run.json: "
                      f"{', '.join(orphans[:3])}", "not ours, or a start was interrupted; delete what you do not need")


def _run_folders() -> list[Path]:
    folder = runs_dir(base_dir())
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _terminal() -> Iterator[Finding]:
    term = os.environ.get("TERM", "")
    colours = "truecolor" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else term or "unknown"
    encoding = getattr(sys.__stdout__, "encoding", None) or "unknown"  # while a screen is open sys.stdout is its own
    yield Finding(OK, "terminal", f"{colours}, encoding {encoding}")
    if os.environ.get("TMUX"):
        yield Finding(WARNING, "clipboard", "inside tmux copying reaches the clipboard only when tmux lets it",
                      "put `set -g set-clipboard on` into tmux.conf")

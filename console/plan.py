"""What a start would do, worked out before anything is done: stages, minutes, disk, paths, the same thing as a command.

The confirm sheet and `run start --dry-run` show a Plan; the operator carries exactly it out. Making one writes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config import from_mapping, options


@dataclass(frozen=True)
class PlanStage:
    """One stage as it will run. `args` are the settings that differ from the stage's defaults."""

    id: str
    stage: str
    title: str
    summary: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """`problems` forbid the start, each a sentence; `warnings` do not. `description` becomes run.json."""

    run: str
    recipe: str
    title: str
    target: str
    target_title: str
    stages: tuple[PlanStage, ...]
    minutes: float
    usd: float
    disk_needed: int  # bytes
    disk_free: int
    path: str
    cli: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    description: dict[str, Any]

    @property
    def ok(self) -> bool:
        return not self.problems


def cli_line(recipe: str, target: str, overrides: Mapping[str, Any]) -> str:
    """The command that does the same."""
    words = ["llmconsole", "run", "start", recipe]
    if target != "local":
        words += ["--target", target]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def changed_args(config: Any) -> dict[str, Any]:
    """The settings of a stage's config that are not at their default."""
    return {name: getattr(config, name) for name, o in options(type(config)).items() if getattr(config, name) != o.default}


def checked_args(config_type: type, args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` validated and typed. Raises ConfigError."""
    return changed_args(from_mapping(config_type, args))


def disk_problem(needed: int, free: int, path: str) -> str:
    """A sentence when the disk is too small, else ''."""
    if free >= needed:
        return ""
    return (f"the run needs about {gigabytes(needed)} of disk and {path} has {gigabytes(free)} free, "
            "so it would stop half way; free some space or point NANOCHAT_BASE_DIR to a larger disk")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

"""A person's taste, from config.toml in the console's folder: strictly checked, each value with its origin.

Science lives in recipes, machines in targets, and secrets only in the environment or the keyring: none of them is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from console.errors import UsageProblem
from engine.config import ConfigError, from_mapping, nearest, opt, options
from remote.cuda import TORCH_CUDA

SECRET_NAMES = ("HF_TOKEN", "HUGGINGFACE_TOKEN", "RUNPOD_API_KEY", "WANDB_API_KEY", "OPENROUTER_API_KEY")


@dataclass(frozen=True)
class ChatSettings:
    """How answers are sampled unless a flag or the chat screen says otherwise."""

    temperature: float = opt(0.6, "0 takes the likeliest token; higher is more varied", low=0, high=5)
    top_k: int = opt(50, "sample among this many likeliest tokens", low=1)
    max_tokens: int = opt(512, "longest answer in tokens", low=1)
    system: str = opt("", "put before the first message")


@dataclass(frozen=True)
class RunSettings:
    """What `s` starts, and where."""

    recipe: str = opt("tiny", "the recipe that one key starts")
    target: str = opt("local", "the machine that it starts on")


@dataclass(frozen=True)
class RentSettings:
    """What a rented machine is, unless a flag or the rent sheet says otherwise. A budget is never assumed."""

    gpus: str = opt("8xH100", "how many of which GPU")
    cloud: str = opt("secure", "secure has a public address always; community is cheaper",
                     choices=("secure", "community", "any"))
    data_centers: str = opt("", "only these, such as EU-RO-1,US-KS-2; empty means any")
    image: str = opt("runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404", "the container that the pod starts")
    min_cuda: str = opt(TORCH_CUDA, "the oldest CUDA that the machine's driver must know")
    disk_gb: int = opt(200, "the pod's own disk", low=20)
    ready_minutes: float = opt(12.0, "a pod that nobody can log in to by then is ended", low=1)
    hold_minutes: float = opt(15.0, "a failed run's machine is kept so long, to look or resume; 0: not at all", low=0)
    secrets: str = opt("", "secrets that RunPod keeps, as VARIABLE=name: HF_TOKEN=my_token,WANDB_API_KEY=wandb; what "
                           "else a stage needs is sent from here, by stdin")
    backup: str = opt("", "where checkpoints are copied before the end: hub:owner/name, a folder, ssh:target:/folder")


@dataclass(frozen=True)
class BackupSettings:
    """Where checkpoints are copied to, and what pruning leaves alone."""

    place: str = opt("", "hub:OWNER/NAME, a folder, or ssh:TARGET:/folder; empty means the console's own folder")
    keep_best: int = opt(3, "prune keeps this many with the best validation result", low=1)
    keep_last: int = opt(2, "prune keeps this many of the newest", low=1)


@dataclass(frozen=True)
class Settings:
    """All sections. `lines` says which line of `file` set a value, by "section.key"; the others are defaults."""

    chat: ChatSettings = field(default_factory=ChatSettings)
    run: RunSettings = field(default_factory=RunSettings)
    rent: RentSettings = field(default_factory=RentSettings)
    backup: BackupSettings = field(default_factory=BackupSettings)
    file: Path | None = None
    lines: dict[str, int] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, Any, str, str]]:
        """(name, value, where it came from, help) of every setting."""
        found = []
        for section, kind in _SECTIONS.items():
            for name, option in options(kind).items():
                key = f"{section}.{name}"
                origin = f"{self.file}:{self.lines[key]}" if key in self.lines else "default"
                found.append((key, getattr(getattr(self, section), name), origin, option.help))
        return found


_SECTIONS: dict[str, type] = {"chat": ChatSettings, "run": RunSettings, "rent": RentSettings,
                              "backup": BackupSettings}


def load(path: Path) -> Settings:
    """The settings in `path`; defaults where it says nothing or is not there. Raises UsageProblem with file, line."""
    from engine.toml_lines import TOMLDecodeError, line_numbers, loads  # here, because most verbs need no settings

    try:
        text = path.read_text(encoding="utf-8")
        table = loads(text)
    except FileNotFoundError:
        return Settings(file=path)
    except (TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageProblem(f"{path}: not TOML: {error}", "correct it, or move it away to use the defaults") from None
    lines = line_numbers(text)
    sections = {name: _section(path, lines, name, values) for name, values in table.items()}
    origins = {f"{name}.{key}": lines.get((name, key), 0) for name in sections for key in table[name]}
    return Settings(file=path, lines=origins, **sections)


def _section(path: Path, lines: Mapping[Any, int], name: str, values: Any) -> Any:
    if name not in _SECTIONS:
        raise UsageProblem(f"{path}:{lines.get((name,), 1)}: unknown section {name!r}{nearest(name, list(_SECTIONS))}")
    if not isinstance(values, dict):
        raise UsageProblem(f"{path}:{lines.get((name,), 1)}: {name} is a section: write [{name}], its settings below")
    known = {f.name for f in fields(_SECTIONS[name])}
    for key, value in values.items():
        line = lines.get((name, key), 1)
        if key not in known:
            raise UsageProblem(f"{path}:{line}: unknown setting {key!r} in [{name}]{nearest(key, sorted(known))}")
        try:
            from_mapping(_SECTIONS[name], {key: value})
        except ConfigError as error:
            raise UsageProblem(f"{path}:{line}: {str(error).removeprefix('--')}") from None
    return from_mapping(_SECTIONS[name], values)

"""A recipe is a TOML file: an ordered list of stages with settings, and what they will take in time and space.

Here one becomes a checked `Recipe`, and a `Recipe` becomes run.json. What a person got wrong is named by file, line,
key and the nearest name that would have worked. It refuses to run anything, and it imports no tensor library.

    title = "Tiny"
    summary = "..."
    disk_gb = 1.0           # room that the run folder needs
    memory_gb = 4.0

    [minutes]               # expected, by kind of machine
    cpu = 8

    [[stage]]
    stage = "base_train"    # a name from engine.stage, then its settings
    depth = 4

    [[stage]]
    stage = "chat_rl"
    enabled = false         # off until someone sets chat_rl.enabled=true, or any other setting of it

    [[stage]]
    stage = "chat_eval"
    source = "rl"
    enabled = "chat_rl"     # on when that one is
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import stage as stages
from engine.config import ConfigError, UnknownName, coerce, nearest, option_named, options
from engine.rundir import valid_run_id
from engine.toml_lines import TOMLDecodeError, line_numbers, loads

MACHINE_KINDS = ("cpu", "mps", "gpu", "8xh100")
_LARGEST = 64 * 1024  # bytes of a recipe file; more is a mistake


class RecipeError(ConfigError):
    """A recipe that cannot be used. `file`, `line` and `key` say where, as far as they are known."""

    def __init__(self, text: str, *, file: Path | None = None, line: int | None = None, key: str | None = None) -> None:
        where = "" if file is None else (f"{file}: " if line is None else f"{file}:{line}: ")
        super().__init__(where + text)
        self.file, self.line, self.key = file, line, key


class UnknownRecipe(RecipeError, UnknownName):
    """There is no recipe of that name."""


@dataclass(frozen=True)
class RecipeStage:
    """One step: the name of a stage and the settings that the recipe gives it, checked and typed. `enabled` says
    whether it is run: yes, no, or as the stage of that name is."""

    stage: str
    args: dict[str, Any] = field(default_factory=dict)
    enabled: bool | str = True


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `minutes` maps a kind of machine to the expected time; `file` is where it was read from."""

    name: str
    title: str
    summary: str
    stages: tuple[RecipeStage, ...]
    minutes: dict[str, float] = field(default_factory=dict)
    disk_gb: float | None = None
    memory_gb: float | None = None
    file: Path | None = None

    @property
    def used(self) -> tuple[RecipeStage, ...]:
        """The steps that a run takes."""
        on = {step.stage for step in self.stages if step.enabled is True}
        return tuple(step for step in self.stages if step.enabled is True or step.enabled in on)


def builtin_folder() -> Path:
    return Path(__file__).parent / "recipes"


def builtin_recipes() -> list[Recipe]:
    """The recipes that come with the product, by name."""
    return [load(path) for path in sorted(builtin_folder().glob("*.toml"))]


def list_recipes(folders: Sequence[Path] = ()) -> tuple[list[Recipe], list[RecipeError]]:
    """Every usable recipe by name, and what is wrong with the others; a person's own folders win over the built-in."""
    results = [_load_or_error(path) for path in _files(folders)]
    found: dict[str, Recipe] = {}
    for result in results:
        if isinstance(result, Recipe):
            found.setdefault(result.name, result)
    return [found[name] for name in sorted(found)], [r for r in results if isinstance(r, RecipeError)]


def _load_or_error(path: Path) -> Recipe | RecipeError:
    try:
        return load(path)
    except RecipeError as error:
        return error


def find(name: str, folders: Sequence[Path] = ()) -> Recipe:
    """The recipe called `name`, or in the file `name` when that ends in .toml. Raises RecipeError."""
    if name.endswith(".toml"):
        return load(Path(name))
    by_name: dict[str, Path] = {}
    for path in _files(folders):
        by_name.setdefault(path.stem, path)
    if name not in by_name:
        raise UnknownRecipe(f"unknown recipe {name!r}{nearest(name, list(by_name))}")
    return load(by_name[name])


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in (*folders, builtin_folder()):
        yield from sorted(folder.glob("*.toml"))


def load(path: Path) -> Recipe:
    """Read and check one recipe file. Raises RecipeError."""
    try:
        with open(path, "rb") as f:
            data = f.read(_LARGEST + 1)
    except OSError as error:
        raise RecipeError(error.strerror or str(error), file=path) from None
    if len(data) > _LARGEST:
        raise RecipeError(f"larger than {_LARGEST // 1024} KiB: not a recipe", file=path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RecipeError("not UTF-8 text", file=path, line=data.count(b"\n", 0, error.start) + 1) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Recipe:
    """The recipe in `text`; its name is the file's name without .toml. Raises RecipeError."""
    try:
        table = loads(text)
    except (TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        raise RecipeError(f"not TOML: {error}", file=path, line=int(found[1]) if found else None) from None
    return _Reader(text, path).recipe(table)


class _Reader:
    """Checks one parsed table and knows its text, to name lines."""

    def __init__(self, text: str, path: Path) -> None:
        self._text, self._path = text, path

    def recipe(self, table: dict[str, Any]) -> Recipe:
        name = self._path.stem
        if not valid_run_id(name):
            raise RecipeError(f"the name {name!r} may hold only letters, digits, '.', '_' and '-'", file=self._path)
        known = ("title", "summary", "minutes", "disk_gb", "memory_gb", "stage")
        for key in table:
            if key not in known:
                raise self._error(f"unknown key {key!r}{nearest(key, known)}", key, (key,))
        return Recipe(name=name, title=self._str(table, "title", name), summary=self._str(table, "summary", ""),
                      stages=self._stages(table.get("stage")), minutes=self._minutes(table.get("minutes", {})),
                      disk_gb=self._amount(table, "disk_gb"), memory_gb=self._amount(table, "memory_gb"),
                      file=self._path)

    def _stages(self, rows: Any) -> tuple[RecipeStage, ...]:
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise self._error("a recipe needs at least one [[stage]] table", "stage", ("stage",))
        return tuple(self._stage(index, row) for index, row in enumerate(rows))

    def _stage(self, index: int, row: dict[str, Any]) -> RecipeStage:
        here = ("stage", index)
        name = row.get("stage")
        if not isinstance(name, str):
            raise self._error(f'[[stage]] number {index + 1} needs a name: stage = "base_train"', "stage", here)
        try:
            spec = stages.find(name)
        except ConfigError as error:
            raise self._error(str(error), "stage", (*here, "stage")) from None
        args = {}
        for key, value in row.items():
            if key not in ("stage", "enabled"):
                try:
                    args.update(_setting(spec, key, value))
                except ConfigError as error:
                    raise self._error(f"{spec.name}: {error}", key, (*here, key)) from None
        return RecipeStage(spec.name, args, self._enabled(row.get("enabled", True), (*here, "enabled")))

    def _enabled(self, value: Any, here: tuple[str | int, ...]) -> bool | str:
        if isinstance(value, bool) or (isinstance(value, str) and value in stages.STAGES):
            return value
        raise self._error(f"enabled = {value!r}: true, false, or the stage that decides it", "enabled", here)

    def _minutes(self, table: Any) -> dict[str, float]:
        if not isinstance(table, dict):
            raise self._error("minutes must be a table, e.g. [minutes] cpu = 8", "minutes", ("minutes",))
        for kind in table:
            if kind not in MACHINE_KINDS:
                text = f"unknown kind of machine {kind!r}{nearest(kind, MACHINE_KINDS)}"
                raise self._error(text, kind, ("minutes", kind))
        return {kind: self._number(value, kind, ("minutes", kind)) for kind, value in table.items()}

    def _str(self, table: dict[str, Any], key: str, default: str) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self._error(f"{key} must be text", key, (key,))
        return value

    def _amount(self, table: dict[str, Any], key: str) -> float | None:
        return self._number(table[key], key, (key,)) if key in table else None

    def _number(self, value: Any, key: str, at: tuple[str | int, ...]) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise self._error(f"{key} must be a number, at least 0", key, at)
        return float(value)

    def _error(self, text: str, key: str, at: tuple[str | int, ...]) -> RecipeError:
        lines = line_numbers(self._text)
        while at and at not in lines:
            at = at[:-1]
        return RecipeError(text, file=self._path, line=lines.get(at), key=key)


def _setting(spec: stages.StageSpec, key: str, value: Any) -> dict[str, Any]:
    """One checked setting by its field name. Raises ConfigError."""
    option = option_named(options(spec.config), key)
    return {option.name: coerce(option, value)}


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with "stage.key=value" applied to every use of that stage. Raises ConfigError."""
    result = list(recipe.stages)
    for text in overrides:
        path, equals, value = text.partition("=")
        name, dot, key = path.partition(".")
        if not equals or not dot:
            raise ConfigError(f"{text!r}: overrides are written stage.key=value")
        name = name.replace("-", "_")
        present = [step.stage for step in recipe.stages]
        if name not in present:
            raise ConfigError(f"recipe {recipe.name} has no stage {name!r}{nearest(name, present)}")
        try:
            new, on = ({}, _yes(value)) if key == "enabled" else (_setting(stages.find(name), key, value), True)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        result = [_changed(step, new, on) if step.stage == name else step for step in result]
    return dataclasses.replace(recipe, stages=tuple(result))


def _changed(step: RecipeStage, new: dict[str, Any], on: bool) -> RecipeStage:
    """The step with new settings; one that was off is on by that, one that follows another goes on following it."""
    return RecipeStage(step.stage, {**step.args, **new}, on if isinstance(step.enabled, bool) else step.enabled)


def _yes(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"enabled={value}: expected true or false")
    return value.lower() == "true"


def to_run_json(recipe: Recipe, run_id: str, *, target: str = "local", created: float | None = None,
                software: str = "") -> dict[str, Any]:
    """The description of one run of this recipe, as run.json holds it."""
    steps = [{"id": f"{index:02d}-{step.stage}", "stage": step.stage, "title": stages.find(step.stage).title,
              "args": dict(step.args)} for index, step in enumerate(recipe.used, 1)]
    return {"v": 1, "run": run_id, "recipe": recipe.name, "title": recipe.title,
            "created": time.time() if created is None else created, "target": target, "software": software,
            "minutes": dict(recipe.minutes), "disk_gb": recipe.disk_gb, "memory_gb": recipe.memory_gb, "stages": steps}

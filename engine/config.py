"""Typed settings of a stage: one dataclass gives the flags, the validation, the form on screen and the docs.

This file knows how a dataclass becomes a command line and back. It does not know which stages exist
(`engine.stage`), and it imports no tensor library, so the console may use it at start.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

C = TypeVar("C")


class ConfigError(ValueError):
    """A flag, key or value that a person wrote cannot be used; the message says which and what would do (exit 2)."""


class UnknownName(ConfigError):
    """What a person named, a recipe or a model, is not there (exit 8)."""


def opt(default: Any, help: str, *, choices: Sequence[str] | None = None, unset: float | None = None,
        low: float | None = None, high: float | None = None, short: str = "", also: str = "",
        required: bool = False) -> Any:
    """A dataclass field with its help text.

    `unset` is the number that nanochat writes for "not given" (-1); it reads as None. `low` and `high` are inclusive.
    `short` is the letter of nanochat's short flag, as in -i; `also` another name that it has for the same. What is
    `required` must be given.
    """
    meta = {"help": help, "choices": tuple(choices) if choices else None, "unset": unset, "low": low, "high": high,
            "short": short, "also": also, "required": required}
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True)
class Option:
    """One setting as the command line, the launch sheet and `stage show` see it."""

    name: str
    type: type
    optional: bool
    default: Any
    help: str
    choices: tuple[str, ...] | None
    unset: float | None
    low: float | None
    high: float | None
    short: str = ""
    also: str = ""
    required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def options(config_type: type[Any]) -> dict[str, Option]:
    """Every setting of a config dataclass, by field name, in order."""
    hints = typing.get_type_hints(config_type)
    found = {}
    for field in dataclasses.fields(config_type):
        kind, optional = _unwrap(hints[field.name])
        m = field.metadata
        found[field.name] = Option(field.name, kind, optional, field.default, m["help"], m["choices"], m["unset"],
                                   m["low"], m["high"], m["short"], m["also"], m["required"])
    return found


def option_named(known: Mapping[str, Option], word: str, what: str = "setting") -> Option:
    """The option that a person calls `word`. Raises ConfigError with the nearest name."""
    key = word.removeprefix("--").replace("-", "_")
    for option in known.values():
        if key in (option.name, option.also):
            return option
    shown = word if what == "flag" else repr(word)
    raise ConfigError(f"unknown {what} {shown}{nearest(key, list(known))}")


def _unwrap(hint: Any) -> tuple[type, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return inner[0], True
    return hint, False


def nearest(word: str, known: Sequence[str]) -> str:
    """'; did you mean X?' when some known name is close to `word`, else the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"


def from_mapping(config_type: type[C], values: Mapping[str, Any]) -> C:
    """Build a config from names and values (strings or already typed), refusing unknown names and wrong types."""
    known = options(config_type)
    ready = {}
    for name, value in values.items():
        option = option_named(known, name)
        ready[option.name] = coerce(option, value)
    return _whole(config_type, known, ready)


def from_argv(config_type: type[C], argv: Sequence[str]) -> C:
    """Build a config from `--key=value`, `--key value` and, for booleans, a bare `--key`; '-' and '_' are equal."""
    known = options(config_type)
    values: dict[str, Any] = {}
    rest = list(argv)
    shorts = {f"-{option.short}": option.flag for option in known.values() if option.short}
    while rest:
        word = rest.pop(0)
        if word[:2] in shorts and word[2:3] in ("", "="):
            word = shorts[word[:2]] + word[2:]
        if not word.startswith("--"):
            raise ConfigError(f"unexpected argument {word!r}: settings are written --name=value")
        name, has_value, value = word[2:].partition("=")
        option = option_named(known, f"--{name}", "flag")
        if not has_value:
            bare = option.type is bool and (not rest or rest[0].startswith("--"))
            if not bare and not rest:
                raise ConfigError(f"--{name} needs a value")
            value = "true" if bare else rest.pop(0)
        values[option.name] = coerce(option, value)
    return _whole(config_type, known, values)


def _whole(config_type: type[C], known: Mapping[str, Option], values: Mapping[str, Any]) -> C:
    for option in known.values():
        if option.required and option.name not in values:
            raise ConfigError(f"{option.flag} is needed: {option.help}")
    return config_type(**values)


def to_argv(config: Any) -> list[str]:
    """The flags that rebuild this config; settings at their default are left out."""
    changed = [(o, getattr(config, name)) for name, o in options(type(config)).items()]
    return [f"{o.flag}={_text(value)}" for o, value in changed if value != o.default]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def coerce(option: Option, value: Any) -> Any:
    """`value` in the option's type, within its choices and bounds, or ConfigError naming the flag."""
    if option.optional and (value is None or (isinstance(value, str) and value.lower() in ("none", "auto", ""))):
        return None
    if value == "" and option.choices and "auto" in option.choices:
        return "auto"  # nanochat's word for it
    typed = _typed(option, value)
    if option.unset is not None and not isinstance(typed, str) and typed == option.unset:
        return None
    if option.choices and typed not in option.choices:
        known = ", ".join(option.choices)
        raise ConfigError(f"{option.flag}={typed}: not one of {known}{nearest(str(typed), option.choices)}")
    if option.low is not None and typed < option.low:
        raise ConfigError(f"{option.flag}={typed}: must be at least {option.low:g}")
    if option.high is not None and typed > option.high:
        raise ConfigError(f"{option.flag}={typed}: must be at most {option.high:g}")
    return typed


_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _typed(option: Option, value: Any) -> Any:
    kind = option.type
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _BOOLS[str(value).lower()]
        if kind is int:
            if isinstance(value, str):
                return int(value.replace("_", ""))
            if isinstance(value, bool) or int(value) != value:
                raise ValueError
            return int(value)
        if kind is float:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
            if number != number:
                raise ValueError
            return number
        if not isinstance(value, str):
            raise ValueError
        return value
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ConfigError(f"{option.flag}={value}: expected {_kind_word(kind)}") from None


def _kind_word(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]

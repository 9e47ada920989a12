"""A person's own keys, from keys.toml in the console's folder: `run.stop = "ctrl+x"`, several keys split by commas.

Checked whole before the screen opens: unknown names, keys that no terminal sends, and two actions on one key where both
can be meant. It knows every binding by its id and nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.binding import Binding
from textual.keys import Keys

from console.errors import UsageProblem
from console.widgets.key_bar import is_character
from engine.config import nearest
from engine.toml_lines import TOMLDecodeError, line_numbers, loads

_MODIFIERS = {"ctrl", "shift", "alt", "super", "meta", "hyper"}
# Panes whose keys work together with their screen's; the app's work with every screen's, a sheet's alone.
_INSIDE = {"home": ("list",), "run": ("log",), "logs": ("log",), "chat": ("prompt",)}
_SCREENS = ("home", "run", "logs", "checkpoints", "chat", "activity")


@dataclass(frozen=True)
class Known:
    """One action that has keys: its id, the keys it has by itself, what it does."""

    id: str
    keys: tuple[str, ...]
    what: str


def load(path: Path) -> dict[str, str]:
    """Keys by binding id, as Textual's keymap wants them; {} without a file. Raises UsageProblem with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        table = loads(text)
    except FileNotFoundError:
        return {}
    except (TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageProblem(f"{path}: not TOML: {error}", "correct it, or move it away to use the usual keys") from None
    lines = line_numbers(text)
    known = known_bindings()
    chosen: dict[str, str] = {}
    for where, value in _flat(table, ()):
        name, at = ".".join(where), f"{path}:{lines.get(where, 1)}"
        if name not in known:
            raise UsageProblem(f"{at}: no action is called {name!r}{nearest(name, sorted(known))}",
                               "llmconsole config keys lists them")
        if not isinstance(value, str) or not value.strip():
            raise UsageProblem(f'{at}: {name} needs a key in quotes, such as "ctrl+x"')
        for key in value.split(","):
            _must_be_a_key(key.strip(), at)
        chosen[name] = ",".join(key.strip() for key in value.split(","))
    _must_not_clash(known, chosen, path, {".".join(map(str, where)): line for where, line in lines.items()})
    return chosen


def known_bindings() -> dict[str, Known]:
    """Every action with an id, of the app, its screens, their panes and sheets."""
    keys: dict[str, list[str]] = {}
    what: dict[str, str] = {}
    for binding in _bindings():
        if binding.id and "." in binding.id:
            keys.setdefault(binding.id, []).append(binding.key)
            what.setdefault(binding.id, binding.tooltip or binding.description)
    return {name: Known(name, tuple(dict.fromkeys(found)), what[name]) for name, found in keys.items()}


def _bindings() -> Iterator[Binding]:
    """Imported here, because only a person with a keymap needs all of them at once."""
    from console.app import Console
    from console.screens import (
        activity,
        attach_sheet,
        chat,
        checkpoints,
        home,
        logs,
        money_sheets,
        picker,
        rent_sheet,
        run,
        sheets,
    )
    from console.screens import help as help_sheet
    from console.widgets import log_view, prompt

    for holder in (Console, home.HomeScreen, home.Choices, run.RunScreen, logs.LogsScreen, log_view.LogView,
                   checkpoints.CheckpointsScreen, chat.ChatScreen, prompt.Prompt, activity.ActivityScreen,
                   activity.EventList, sheets.Sheet, picker.Picker, help_sheet.HelpSheet, money_sheets.TypedSheet,
                   rent_sheet.RentSheet, attach_sheet.AttachSheet):
        for owner in holder.__mro__:
            if owner.__module__.startswith("console."):
                yield from Binding.make_bindings(owner.__dict__.get("BINDINGS", ()))


def _flat(table: Mapping[str, Any], before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """`run.stop = "x"`, `[run]` with `stop = "x"`, and `"run.stop" = "x"` alike."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, (*before, name))
        else:
            yield (*before, name), value


def _must_be_a_key(key: str, at: str) -> None:
    *modifiers, last = key.split("+") if key not in ("+", "") else [key]
    named = last in {each.value for each in Keys} or (last.isprintable() and is_character(last))
    if not named or not set(modifiers) <= _MODIFIERS:
        raise UsageProblem(f"{at}: {key!r} is no key that a terminal sends",
                           "write a character, or a name such as ctrl+x, f6, left, question_mark")


def _long(keys: str) -> set[str]:
    """Keys as the framework names them: `?` is question_mark."""
    return {binding.key for binding in Binding.make_bindings([Binding(keys, "", "")])}


def _must_not_clash(known: Mapping[str, Known], chosen: Mapping[str, str], path: Path,
                    lines: Mapping[str, int]) -> None:
    now = {name: _long(chosen[name]) if name in chosen else set(each.keys) for name, each in known.items()}
    for name in chosen:
        for other in known:
            shared = now[name] & now[other]
            if other == name or not shared or not _together(name, other):
                continue
            if shared <= set(known[name].keys) & set(known[other].keys):
                continue  # they share it by themselves: the focus decides
            keys, at = " ".join(sorted(shared)), f"{path}:{lines.get(name, 1)}"
            raise UsageProblem(f"{at}: {name} and {other} ({known[other].what}) would both be on {keys}",
                               f"give {other} another key as well, or choose a free one")


def _together(one: str, other: str) -> bool:
    """Whether both can be meant by one key press."""
    scopes = {one.partition(".")[0], other.partition(".")[0]}
    if len(scopes) == 1:
        return True
    inside = {pane for panes in _INSIDE.values() for pane in panes}
    if "app" in scopes:
        return bool(scopes & {*_SCREENS, *inside})
    return any(scopes <= {screen, *panes} for screen, panes in _INSIDE.items())


def rows(chosen: Mapping[str, str], known: Iterable[Known]) -> list[tuple[str, str, str, str]]:
    """(id, keys in effect, usual keys if others, what it does) of every action."""
    return [(each.id, chosen.get(each.id, ", ".join(each.keys)), ", ".join(each.keys) if each.id in chosen else "",
             each.what) for each in known]

"""`config`: the settings in effect, where each comes from, and where files lie. Secrets are named, never shown."""

from __future__ import annotations

import os
import sys

import click

from console.cli.output import emit_json, json_option, line, note, table
from console.credentials import NAMES, present, store
from console.errors import UsageProblem
from console.paths import Home, home
from console.settings import load


@click.group()
def config() -> None:
    """Show the settings in effect and where they come from."""


@config.command("show")
@json_option
def config_show(as_json: bool) -> None:
    """Every setting with its value and origin."""
    settings = load(Home(home()).config)
    if as_json:
        emit_json({"settings": {name: {"value": value, "from": origin} for name, value, origin, _ in settings.rows()},
                   "paths": _paths(), "secrets": present()})
        return
    table(("setting", "value", "from", "meaning"),
          [(name, repr(value), origin, text) for name, value, origin, text in settings.rows()])
    line("")
    table(("path", "where", "from"), [(name, row["path"], row["from"]) for name, row in _paths().items()])
    line("")
    table(("secret", "found in"), [(name, where or "nowhere") for name, where in present().items()])


@config.command("path")
@json_option
def config_path(as_json: bool) -> None:
    """Where config.toml is looked for; it need not be there."""
    path = Home(home()).config
    if as_json:
        emit_json({"path": path, "exists": path.exists()})
    else:
        line(str(path))


@config.command("keys")
@json_option
def config_keys(as_json: bool) -> None:
    """Every action of the screens with its id and keys. `keys.toml` changes them: run.stop = "ctrl+x"."""
    from console.keymap import known_bindings, load, rows

    path = Home(home()).keymap
    found = rows(load(path), known_bindings().values())
    if as_json:
        emit_json({"path": path, "exists": path.exists(),
                   "keys": [{"id": name, "keys": keys, "usual": usual or keys, "what": what}
                            for name, keys, usual, what in found]})
        return
    table(("action", "keys", "usually", "what it does"), found)
    note(f"{path} changes them" + ("" if path.exists() else "; it is not there"))


@config.command("set-secret")
@click.argument("name", type=click.Choice(NAMES))
@click.option("--forget", is_flag=True, help="Remove it instead.")
def config_set_secret(name: str, forget: bool) -> None:
    """Keep a key or token: asked for without echo, or read from stdin. It goes to the keyring, else to a 0600 file."""
    value = "" if forget else _asked(name)
    where = store(name, value)
    note(f"{name} is {'forgotten' if forget else f'kept in {where}'}")


def _asked(name: str) -> str:
    """Never an argument: a command line is read by everybody on this machine."""
    asks = sys.stdin.isatty()
    value = str(click.prompt(name, hide_input=True, err=True)) if asks else sys.stdin.readline()
    if not value.strip():
        raise UsageProblem(f"nothing was given for {name}, so nothing was changed")
    return value


def _paths() -> dict[str, dict[str, str]]:
    from engine.rundir import base_dir

    def origin(variable: str) -> str:
        return f"${variable}" if os.environ.get(variable) else "default"

    return {"home": {"path": str(home()), "from": origin("LLMCONSOLE_HOME")},
            "base": {"path": str(base_dir()), "from": origin("NANOCHAT_BASE_DIR")}}

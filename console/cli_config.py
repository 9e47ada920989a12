"""`config`: the settings in effect, where each comes from, and where files lie. Secrets are named, never shown."""

from __future__ import annotations

import os

import click

from console.cli_output import emit_json, json_option, line, table
from console.paths import Home, home
from console.settings import load, secrets_present


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
                   "paths": _paths(), "secrets": secrets_present()})
        return
    table(("setting", "value", "from", "meaning"),
          [(name, repr(value), origin, text) for name, value, origin, text in settings.rows()])
    line("")
    table(("path", "where", "from"), [(name, row["path"], row["from"]) for name, row in _paths().items()])
    line("")
    table(("secret", "in the environment"),
          [(name, "yes" if there else "no") for name, there in secrets_present().items()])


@config.command("path")
@json_option
def config_path(as_json: bool) -> None:
    """Where config.toml is looked for; it need not be there."""
    path = Home(home()).config
    if as_json:
        emit_json({"path": path, "exists": path.exists()})
    else:
        line(str(path))


def _paths() -> dict[str, dict[str, str]]:
    from engine.rundir import base_dir

    def origin(variable: str) -> str:
        return f"${variable}" if os.environ.get(variable) else "default"

    return {"home": {"path": str(home()), "from": origin("LLMCONSOLE_HOME")},
            "base": {"path": str(base_dir()), "from": origin("NANOCHAT_BASE_DIR")}}

"""The `llmconsole` command: its verbs by name, and how every failure becomes one sentence and an exit code.

A verb's code is imported when the verb is used, so `--help` answers at once. stdout is data, stderr is commentary.
Without a verb the screen opens.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

_VERBS = {
    "chat": ("console.cli.chat:chat", "Ask a trained model, once or in a conversation."),
    "ckpt": ("console.cli.ckpt:ckpt", "Back up, prove, restore, prune, import and export checkpoints."),
    "config": ("console.cli.config:config", "Show the settings in effect and where they come from."),
    "cost": ("console.cli.cost:cost", "What rented machines cost, and their limits."),
    "doctor": ("console.cli.doctor:doctor", "Check this machine and the console's own files."),
    "model": ("console.cli.catalog:model", "The models that can be talked to."),
    "query": ("console.cli.query:query", "Read the run log with SQL."),
    "recipe": ("console.cli.recipe:recipe", "The recipes that can be started."),
    "run": ("console.cli.run:run", "Start, watch, stop and resume runs."),
    "serve": ("console.cli.serve:serve", "Talk to a model in a browser, or from any program that speaks OpenAI's API."),
    "stage": ("console.cli.catalog:stage", "The stages that recipes are made of, and their settings."),
    "status": ("console.cli.status:status", "What runs now, and how the last run ended."),
    "target": ("console.cli.target:target", "The machines that runs can be sent to."),
    "tokens": ("console.cli.tokens:tokens", "Show how a model cuts a text into tokens."),
}


class Verbs(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, _, name = _VERBS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no verb {args[0]!r}{suggestion(args[0], _VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _VERBS[name][1]) for name in sorted(_VERBS)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from console.exit_codes import MEANING

        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANING.items()])


def suggestion(word: str, known: Any) -> str:
    """'; did you mean X?' or the list of what there is."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from console.version import version

        click.echo(f"llmconsole {version()}")
        ctx.exit()


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--read-only", is_flag=True, help="Change nothing: no start, stop or resume.")
@click.option("--demo", is_flag=True, help="The whole rented evening on this machine with a pretended provider, free.")
@click.option("--version", is_flag=True, callback=_show_version, expose_value=False, is_eager=True,
              help="Print the version and exit.")
@click.pass_context
def cli(ctx: click.Context, read_only: bool, demo: bool) -> int:
    """Train your own ChatGPT from scratch, and talk to it.

    Without a verb the console opens on screen. Every verb has --help, and --json where it prints facts.
    """
    ctx.obj = {"read_only": read_only}
    if demo and ctx.invoked_subcommand is not None:
        from console.demo import enter

        enter()
    if ctx.invoked_subcommand is not None:
        return 0
    from console.door import open_screen

    return open_screen(read_only, demo)


def main(argv: Sequence[str]) -> None:
    """Run the verb and leave with its exit code."""
    code = call(argv)
    try:
        if sys.stdout is not None:  # None: it was closed before we began
            sys.stdout.flush()
    except BrokenPipeError:  # `llmconsole ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def call(argv: Sequence[str]) -> int:
    """Run one command line; the exit code. What a person can act on is said in one sentence on stderr."""
    try:
        return int(cli.main(args=list(argv), prog_name="llmconsole", standalone_mode=False) or 0)
    except (BrokenPipeError, SystemExit):  # nobody reads on; then click leaves by itself, and no verb of ours does
        return 0
    except (click.Abort, KeyboardInterrupt):
        return _say(130, "interrupted; what was started keeps running", "llmconsole status shows it")
    except Exception as error:  # noqa: BLE001 - the process ends here
        return explain(error)


def explain(error: Exception) -> int:
    """Say in one sentence what went wrong and what to do; the exit code. What nobody foresaw goes to a crash file."""
    import sqlite3

    from console.errors import ConsoleError
    from console.exit_codes import Exit
    from engine.config import ConfigError, UnknownName
    from remote.errors import HostUnreachable, RemoteError

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "llmconsole"
        return _say(Exit.USAGE, error.format_message(), f"{command} --help")
    if isinstance(error, ConsoleError):
        return _say(error.exit, str(error), error.next)
    if isinstance(error, ConfigError):
        return _say(Exit.NOT_FOUND if isinstance(error, UnknownName) else Exit.USAGE, str(error), "")
    if isinstance(error, HostUnreachable):
        return _say(Exit.UNREACHABLE, f"the target does not answer: {error}", "what runs there goes on; try again")
    if isinstance(error, (RemoteError, click.ClickException)):
        return _say(Exit.WORK_FAILED, str(error), "")
    if isinstance(error, sqlite3.Error):
        return _say(Exit.WORK_FAILED, f"the run log cannot be used: {error}", "llmconsole doctor says more")
    if isinstance(error, OSError):
        return _say(Exit.WORK_FAILED, _cause(error), "llmconsole doctor says more")
    return _dumped(error)


def _cause(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"a disk is full{f', at {error.filename}' if error.filename else ''}, so this could not be written"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _dumped(error: Exception) -> int:
    """A fault of ours: the traceback goes to a file, a sentence to the person."""
    from console.crash import kind_sentence
    from console.exit_codes import Exit
    from console.paths import home

    click.echo(kind_sentence(home(), error), err=True)
    return Exit.WORK_FAILED


def _say(code: int, text: str, next: str) -> int:
    from console.text import clean

    click.echo(clean(f"llmconsole: {text}" + (f"\n  {next}" if next else "")), err=True)
    return int(code)

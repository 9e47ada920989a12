"""`ckpt import`, `ckpt export` and what `model pull` shares with them: models of other people here, ours for others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from console.cli.output import emit_json, json_option, line, note
from console.cli.stopping import ctrl_c_stops
from console.errors import Refused, UsageProblem
from console.widgets.numbers import size

STAGES = click.Choice(["base", "mid", "sft", "rl"])


def may_write(ctx: click.Context, dry_run: bool = False) -> None:
    """Raises Refused in a read-only console."""
    if ctx.find_root().obj["read_only"] and not dry_run:
        raise Refused("this console is read-only: it copies and deletes nothing", "leave --read-only out")


@click.command("import")
@click.argument("sources", nargs=-1)
@click.option("--repo-id", help="OWNER/NAME, as pull_from_hf names it.")
@click.option("--repo-path", default="", help="The folder in it.")
@click.option("--revision", help="A branch or commit; it is pinned to its commit at once.")
@click.option("--stage", type=STAGES, help="What it is, where its place does not say it.")
@click.option("--target-tag", "tag", help="The tag that it gets here.")
@click.option("--step", type=int, help="Only this step.")
@click.option("--as", "label", help="The run that it becomes here.")
@click.option("--no-optimizer", is_flag=True, help="Leave out what only a resume needs.")
@json_option
@click.pass_context
def import_(ctx: click.Context, sources: tuple[str, ...], repo_id: str | None, repo_path: str,
                revision: str | None, stage: str | None, tag: str | None, step: int | None, label: str | None,
                no_optimizer: bool, as_json: bool) -> int:
    """Bring a model here: a folder, OWNER/NAME, OWNER/NAME::folder::pattern,pattern, or several that belong together.

    nanochat's own layout and those of its forks are understood, and transformers' format.
    """
    may_write(ctx)
    specs = [*sources, *([f"{repo_id}::{repo_path}" if repo_path else repo_id] if repo_id else [])]
    return import_here(specs, label, as_json, stage=stage, tag=tag, step=step, optimizer=not no_optimizer,
                       revision=revision)


def import_here(specs: list[str], label: str | None, as_json: bool, **more: Any) -> int:
    """Bring models here and say where they are; `ckpt import` and `model pull` are this."""
    from console.keeping.importing import bring, label_for
    from console.keeping.transfer_lines import narrator
    from console.paths import Home, home
    from engine.rundir import base_dir, valid_run_id

    if not specs:
        raise UsageProblem("name a source: a folder, or OWNER/NAME")
    name = label or label_for(specs)
    for word, what in ((name, "run"), (more.get("tag"), "tag")):
        if word is not None and not valid_run_id(word):
            raise UsageProblem(f"{word!r} cannot name a {what}", "use letters, digits, '.', '_' and '-', at most 80")
    with ctrl_c_stops() as stop:
        arrived = bring(Home(home()), specs, base_dir(), name, narrator(as_json), stop, **more)
    if as_json:
        emit_json({"run": name, "checkpoints": arrived})
        return 0
    for item in arrived:
        line(f"{name}/{item.stage}@{item.step}  {size(item.bytes)}  {item.folder}")
    note(f"`llmconsole chat -m {name}` talks to it")
    return 0


@click.command("export")
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def export(ctx: click.Context, model: str, target: Path, as_json: bool) -> int:
    """Write MODEL to the new folder TARGET in transformers' format, with its tokenizer and a model card."""
    from console.keeping import importing
    from engine.catalog import find, list_models
    from engine.rundir import base_dir

    may_write(ctx)
    chosen = find(list_models(base_dir()), model)
    if os.path.lexists(target.expanduser()):
        raise Refused(f"{target} is there already; nothing is overwritten", "name a new folder")
    done = importing.export(chosen, target)
    if as_json:
        emit_json(done)
    else:
        line(f"{done['folder']}  {done['tensors']} tensors  {size(done['bytes'])}")
    return 0

"""`model` and `stage`: what there is to talk to, and to set."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from console.cli.asking import typed
from console.cli.output import emit_json, json_option, line, note, table, when
from console.errors import NotFound


@click.group()
def model() -> None:
    """The models that can be talked to."""


@model.command("list")
@json_option
def model_list(as_json: bool) -> None:
    """Every checkpoint below NANOCHAT_BASE_DIR, newest first; * marks the one that `chat` takes by itself."""
    from engine.catalog import default_model, list_models
    from engine.rundir import base_dir

    models = list_models(base_dir())
    default = default_model(models)
    if as_json:
        emit_json({"default": default.ref if default else None, "models": models})
        return
    if not models:
        note(f"no models below {base_dir()} yet; `llmconsole run start tiny --wait` makes one in a few minutes")
        return
    rows = [("*" if m == default else "", m.ref, f"{m.n_params:,}" if m.n_params else None, m.val_bpb, when(m.created),
             m.problem or ("verified" if m.verified else "not ours: unverified")) for m in models]
    table(("", "model", "parameters", "val bpb", "made", "state"), rows)


@model.command("pull")
@click.argument("sources", nargs=-1, required=True)
@click.option("--as", "label", help="The run that it becomes here.")
@click.option("--revision", help="A branch or commit; it is pinned to its commit at once.")
@click.option("--stage", type=click.Choice(["base", "mid", "sft", "rl"]), help="What it is, where nothing says it.")
@json_option
@click.pass_context
def model_pull(ctx: click.Context, sources: tuple[str, ...], label: str | None, revision: str | None,
               stage: str | None, as_json: bool) -> int:
    """Bring a model here to talk to: weights and tokenizer, without what only training needs."""
    from console.cli.exchange import import_here, may_write

    may_write(ctx)
    return import_here(list(sources), label, as_json, stage=stage, optimizer=False, revision=revision)


@model.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Delete it without asking, even when no other copy is proven.")
@json_option
@click.pass_context
def model_rm(ctx: click.Context, name: str, yes: bool, as_json: bool) -> int:
    """Delete a model's files on this machine. Without a proven copy elsewhere you type its name first."""
    from console.cli.exchange import may_write
    from console.keeping.pruning import only_copy, remove_local
    from console.keeping.shelf import survey
    from console.paths import Home, home
    from engine.catalog import find, list_models
    from engine.rundir import base_dir

    may_write(ctx)
    chosen = find(list_models(base_dir()), name)
    items = survey(Home(home()), base_dir()).items
    item = next((i for i in items if i.here and i.here.folder == str(chosen.path) and i.name.step == chosen.step), None)
    if item is None:
        raise NotFound(f"{chosen.ref} has no files that may be deleted")
    reason = only_copy(Home(home()), base_dir(), item)
    if reason:
        note(f"{chosen.ref}: {reason}; deleting it loses it for good")
    if not yes:
        typed(f"Type {chosen.ref} to delete it", chosen.ref)
    freed = remove_local(item)
    if as_json:
        emit_json({"removed": chosen.ref, "bytes": freed, "last_copy": bool(reason)})
    else:
        line(f"removed {chosen.ref}")
    return 0


@click.group()
def stage() -> None:
    """The stages that recipes are made of, and their settings."""


@stage.command("list")
@json_option
def stage_list(as_json: bool) -> None:
    """Every stage in the order of the pipeline."""
    from engine.stage import STAGES

    if as_json:
        emit_json({"stages": [
            {"name": s.name, "title": s.title, "summary": s.summary, "reads": s.reads, "writes": s.writes,
             "resumable": s.resumable, "parallel": s.parallel} for s in STAGES.values()]})
        return
    table(("stage", "title", "what it does"), [(s.name, s.title, s.summary) for s in STAGES.values()])


@stage.command("show")
@click.argument("name")
@json_option
def stage_show(name: str, as_json: bool) -> None:
    """Every setting of one stage: default, range and meaning."""
    from engine.config import options
    from engine.stage import STAGES, find

    if name.replace("-", "_") not in STAGES:
        from console.cli.main import suggestion

        raise NotFound(f"there is no stage {name!r}{suggestion(name, STAGES)}")
    spec = find(name)
    settings = list(options(spec.config).values())
    if as_json:
        facts = [{**dataclasses.asdict(dataclasses.replace(o, type=str)), "type": o.type.__name__} for o in settings]
        emit_json({"name": spec.name, "title": spec.title, "summary": spec.summary, "settings": facts})
        return
    line(f"{spec.title}: {spec.summary}")
    line("")
    table(("setting", "default", "meaning"), [(o.name, o.default, o.help + _limits(o)) for o in settings])


def _limits(option: Any) -> str:
    if option.choices:
        return f" ({', '.join(option.choices)})"
    limits = (("at least", option.low), ("at most", option.high))
    bounds = [f"{word} {value:g}" for word, value in limits if value is not None]
    return f" ({', '.join(bounds)})" if bounds else ""

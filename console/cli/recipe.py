"""`recipe`: what can be started, what each of its stages does, and what it will take in time, memory and money."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from console.cli.amounts import Amount
from console.cli.output import emit_json, json_option, line, note, table

if TYPE_CHECKING:
    from engine.estimate import MachineCost, TrainingCost
    from engine.recipe import Recipe

_WORTH_RENTING_H = 0.05  # what takes less on every machine of the table is not shown with a price


@click.group()
def recipe() -> None:
    """The recipes that can be started."""


def _folders() -> list[Any]:
    from console.paths import Home, home

    return [Home(home()).recipes]


@recipe.command("list")
@json_option
def recipe_list(as_json: bool) -> None:
    """Every usable recipe, yours (in the console's folder) before the built-in ones."""
    from engine.recipe import list_recipes

    usable, broken = list_recipes(_folders())
    if as_json:
        emit_json({"recipes": usable, "problems": [str(error) for error in broken]})
        return
    table(("recipe", "stages", "takes", "disk", "what it does"),
          [(r.name, len(r.used), _times(r), f"{r.disk_gb:g} GB" if r.disk_gb else None, r.summary or r.title)
           for r in usable])
    for error in broken:
        note(f"not usable: {error}")


def _times(recipe: Recipe) -> str:
    """The expected time on the machines that it is known for, the smallest machine first."""
    return ", ".join(f"{_hours(minutes / 60)} on {kind}" for kind, minutes in recipe.minutes.items()) or "-"


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


@recipe.command("show")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="STAGE.KEY=VALUE", help="As `run start` takes it.")
@click.option("--usd", type=Amount(), help="Price of one GPU for one hour.  [default: the list price]")
@click.option("--argv", is_flag=True, help="Also the exact command line of every stage.")
@json_option
def recipe_show(name: str, overrides: tuple[str, ...], usd: float | None, argv: bool, as_json: bool) -> None:
    """The stages of one recipe, the settings that it gives them, and what training will take.

    Times in brackets are arithmetic on the training stages alone, at the share of the peak that published runs reached.
    """
    from engine.estimate import machine_costs, training_costs
    from engine.recipe import find, with_overrides

    found = with_overrides(find(name, _folders()), overrides)
    costs, machines = training_costs(found), machine_costs(found, usd)
    if as_json:
        emit_json({**dataclasses.asdict(found), "training": [_training_facts(c) for c in costs],
                   "machines": [_machine_facts(m) for m in machines], "argv": _argv(found)})
        return
    _print_stages(found)
    _print_costs(costs, machines)
    if argv:
        _print_argv(found)


def print_dry_run(name: str, overrides: Mapping[str, str]) -> None:
    """What a start of this recipe would cost on rented machines, and the command line of every stage."""
    from engine.estimate import machine_costs, training_costs
    from engine.recipe import find, with_overrides

    recipe = with_overrides(find(name, _folders()), [f"{key}={value}" for key, value in overrides.items()])
    _print_costs(training_costs(recipe), machine_costs(recipe))
    _print_argv(recipe)


def _print_argv(recipe: Recipe) -> None:
    line("")
    for words in _argv(recipe):
        line(" ".join(words))


def _print_stages(recipe: Recipe) -> None:
    from engine.stage import find

    line(f"{recipe.title}: {recipe.summary}" if recipe.summary else recipe.title)
    line(f"file   {recipe.file}")
    line(f"takes  {_times(recipe)}")
    line("")
    used = recipe.used
    for step in recipe.stages:
        off = "" if step in used else f" (off: --set {step.stage}.enabled=true, or any setting of it, turns it on)"
        off = f" (with {step.enabled})" if off and isinstance(step.enabled, str) else off
        line(f"{step.stage:<11} {find(step.stage).summary}{off}")
        if step.args:
            line(" " * 12 + " ".join(f"{key}={value}" for key, value in step.args.items()))


def _print_costs(costs: list[TrainingCost], machines: list[MachineCost]) -> None:
    if not costs:
        return
    line("")
    table(("training", "parameters", "steps", "tokens", "FLOPs", "memory"),
          [(c.stage, f"{c.parameters:,}", f"{c.steps:,}" if c.steps is not None else "as the data",
            f"{c.tokens:,}" if c.tokens is not None else None, f"{c.flops:.2e}" if c.flops is not None else None,
            f"{c.memory / 1e9:.1f} GB") for c in costs])
    if max(m.hours for m in machines) < _WORTH_RENTING_H:
        return
    line("")
    table(("machine", "time", "cost", "fits"),
          [(m.machine.title, _hours(m.hours) if m.measured else f"[{_hours(m.hours)}]", f"${m.usd:,.2f}",
            "yes" if m.fits else "no: a smaller device_batch_size") for m in machines])


def _training_facts(cost: TrainingCost) -> dict[str, Any]:
    return {**dataclasses.asdict(cost), "tokens": cost.tokens, "flops": cost.flops}


def _machine_facts(cost: MachineCost) -> dict[str, Any]:
    return {**dataclasses.asdict(cost), "machine": cost.machine.name, "gpus": cost.machine.gpus}


def _argv(recipe: Recipe) -> list[list[str]]:
    from engine.plan import planned, stage_argv
    from engine.recipe import to_run_json

    return [stage_argv(step, python=("python",)) for step in planned(to_run_json(recipe, recipe.name))]

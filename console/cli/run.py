"""`run`: the life of a run from the command line, by the same operator that the screen uses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.amounts import Amount
from console.cli.compare import run_compare
from console.cli.output import duration, emit_json, json_option, line, note, table, when
from console.cli.workspace import chosen_run, fresh_workspace
from console.errors import Refused, UsageProblem
from console.exit_codes import Exit
from console.runstate import RunState, Word

if TYPE_CHECKING:
    from console.plan import Plan
    from console.runlog.queries import Latest, Queries, Run, Stage
    from console.workspace import Workspace


@click.group()
def run() -> None:
    """Start, watch, stop and resume runs."""


@run.command("start")
@click.argument("recipe", required=False)
@click.option("--target", help="The machine to run on.  [default: this machine]")
@click.option("--set", "overrides", multiple=True, metavar="STAGE.KEY=VALUE", help="Change one setting; repeatable.")
@click.option("--id", "run_id", help="The run's id; starting the same id again changes nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and stop.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is the run's.")
@click.option("--timeout", type=Amount(), help="With --wait: seconds after which to stop waiting.")
@click.option("--budget", type=Amount(positive=True), help="Renting: at most so many US dollars.")
@click.option("--hours", type=Amount(positive=True), help="Renting: at most so many hours.")
@click.option("--gpus", default="", help="Renting: such as 8xH100.  [default: rent.gpus of the settings]")
@click.option("--wait-for-stock", is_flag=True, help="Renting: ask again each minute while nothing is free.")
@click.option("--hold", type=Amount(), help="Renting: minutes that a failed run's machine is kept, to look or resume; "
                                             "0: not at all.  [default: rent.hold_minutes of the settings]")
@json_option
@click.pass_context
def run_start(ctx: click.Context, recipe: str | None, target: str | None, overrides: tuple[str, ...],
              run_id: str | None, yes: bool, dry_run: bool, wait: bool, timeout: float | None, budget: float | None,
              hours: float | None, gpus: str, wait_for_stock: bool, hold: float | None, as_json: bool) -> int:
    """Start a recipe. RECIPE is a name from `recipe list` or a .toml file; without it, the one that `s` starts.

    With `--target runpod` a machine is rented for it, saved from, and given back at its end. When the run fails it is
    kept for --hold minutes first; interrupt a --wait then and use `run resume`, `target shell` or `target down`. With
    --wait the exit code is 0 only when the run finished, else 1, once the machine was given back.
    """
    from console.machines.targets import RENTED
    from console.paths import Home, home
    from console.settings import load

    if "" in (recipe, target):  # a variable of a script that was not set, not a wish for the default
        raise UsageProblem("an empty word names no recipe and no target", "leave it out for the default")
    settings = load(Home(home()).config)
    with fresh_workspace(ctx, patience=0.5) as workspace:
        where = target or workspace.hosts.targets.default or settings.run.target
        if where in RENTED:
            from console.cli.rent import rent_and_start

            return rent_and_start(workspace, recipe or settings.run.recipe, _pairs(overrides), run_id, budget=budget,
                                  hours=hours, gpus=gpus, wait_for_stock=wait_for_stock, hold=hold, yes=yes,
                                  dry_run=dry_run, wait=wait, timeout=timeout, as_json=as_json)
        plan = workspace.operator.plan(recipe or settings.run.recipe, where, _pairs(overrides), run_id)
        _print_plan(plan)
        if dry_run:
            from console.cli.recipe import print_dry_run

            emit_json(plan) if as_json else print_dry_run(recipe or settings.run.recipe, _pairs(overrides))
            return Exit.OK if plan.ok else Exit.REFUSED
        if plan.problems:
            raise Refused("not started: " + "; ".join(plan.problems))
        if not yes:
            _ask()
        started = workspace.operator.start(plan)
    note(f"started {started}; it keeps running when this command or the console ends")
    if wait:
        from console.cli.wait import wait_and_report

        return wait_and_report(ctx, started, timeout, as_json)
    if as_json:
        emit_json({"run": started, "path": plan.path, "target": plan.target})
    else:
        line(started)
    return Exit.OK


def _pairs(overrides: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise UsageProblem(f"--set {text}: write stage.key=value, for example --set base_train.depth=6")
        found[key] = value
    return found


def _print_plan(plan: Plan) -> None:
    from console.plan import gigabytes

    time = "a time that nobody has measured here" if plan.minutes is None else f"about {plan.minutes:g} min"
    note(f"{plan.title} on {plan.target_title}: {', '.join(s.title for s in plan.stages)}")
    note(f"takes {time} and {gigabytes(plan.disk_needed)} of disk ({gigabytes(plan.disk_free)} free), "
         f"costs ${plan.usd:.2f}")
    note(f"files go to {plan.path}")
    for warning in plan.warnings:
        note(f"note: {warning}")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UsageProblem("nobody can be asked here, so nothing was started", "add --yes")
    if not click.confirm("Start?", default=True, err=True):
        raise Refused("not started, as you said")


@run.command("list")
@click.option("--limit", type=click.IntRange(1, 10**9), default=50, show_default=True,
              help="How many of the newest runs.")
@json_option
@click.pass_context
def run_list(ctx: click.Context, limit: int, as_json: bool) -> None:
    """The newest runs and how they are."""
    with fresh_workspace(ctx) as workspace:
        runs = workspace.queries.runs(limit)
        states = workspace.operator.states(runs)
    if as_json:
        emit_json({"runs": [_facts(row, states[row.id]) for row in runs]})
        return
    if not runs:
        note("no runs yet; `llmconsole run start tiny --wait` starts one")
        return
    table(("run", "recipe", "state", "stages", "at", "started", "took"),
          [(r.id, r.recipe, states[r.id].word, f"{r.stages_done}/{r.stages_total}", r.last_stage, when(r.started),
            duration(r.ended - r.started if r.ended and r.started else None)) for r in runs])


def _facts(row: Run, state: RunState) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(row), "state": state.word.value, "alive": state.alive}


@run.command("show")
@click.argument("run_id", required=False)
@json_option
@click.pass_context
def run_show(ctx: click.Context, run_id: str | None, as_json: bool) -> None:
    """One run with its stages; without RUN_ID the newest."""
    with fresh_workspace(ctx) as workspace:
        chosen = chosen_run(workspace, run_id)
        if as_json:
            emit_json(run_facts(workspace, chosen))
        else:
            _print_run(workspace, chosen)


def run_facts(workspace: Workspace, run_id: str) -> dict[str, Any]:
    """Everything that `run show --json` and `run wait --json` print."""
    queries, state = workspace.queries, workspace.operator.state(run_id)
    row = queries.run(run_id)
    known = _facts(row, state) if row else {"id": run_id, "state": state.word.value}
    return {**known, "path": workspace.operator.locate(run_id)[1], "text": state.text, "next": state.next,
            "exit_code": state.exit_code, "log_tail": state.log_tail,
            "stages": [_stage_facts(queries, run_id, stage) for stage in queries.stages(run_id)],
            "checkpoints": queries.checkpoints(run_id), "evals": queries.evals(run_id),
            "alerts": queries.alerts(run_id)}


def _stage_facts(queries: Queries, run_id: str, stage: Stage) -> dict[str, Any]:
    import dataclasses

    latest = {name: found.value for name, found in queries.latest_metrics(run_id, stage.id).items()}
    return {**dataclasses.asdict(stage), "fraction": stage.fraction, "metrics": latest}


def _print_run(workspace: Workspace, run_id: str) -> None:
    queries, state = workspace.queries, workspace.operator.state(run_id)
    row = queries.run(run_id)
    line(f"{run_id}  {state.word}")
    line(state.text)
    if state.next:
        line(state.next)
    if row:
        line(f"recipe {row.recipe} · attempt {state.attempt} · started {when(row.started)} · {row.path}")
        if row.target != "local":
            line(f"events, logs and report are copied to {workspace.home.mirror / run_id}")
    line("")
    table(("stage", "state", "took", "done", "result"),
          [(s.id, s.state, duration(s.seconds), f"{s.fraction:.0%}" if s.fraction is not None else None,
            _result(queries.latest_metrics(run_id, s.id))) for s in queries.stages(run_id)])
    if state.word in (Word.FAILED, Word.LOST) and state.log_tail:
        line("\nlast lines of the log:")
        for text in state.log_tail:
            line(f"  {text}")


def _result(latest: dict[str, Latest]) -> str:
    shown = [name for name in ("val_bpb", "train_bpb", "loss", "accuracy") if name in latest]
    return " ".join(f"{name} {latest[name].value:.4g}" for name in shown) or "-"


@run.command("wait")
@click.argument("run_id", required=False)
@click.option("--timeout", type=Amount(), help="Seconds after which to stop waiting (exit 124).")
@json_option
@click.pass_context
def run_wait(ctx: click.Context, run_id: str | None, timeout: float | None, as_json: bool) -> int:
    """Wait for the end of a run: exit 0 when it finished, 1 when it failed, was stopped or got lost.

    A rented machine is driven meanwhile: saved from, copied, proven and given back at the end.
    """
    from console.cli.wait import wait_and_report

    with fresh_workspace(ctx, patience=0.5) as workspace:
        chosen = chosen_run(workspace, run_id)
        rental = workspace.operator.rentals.book.of_run(chosen)
        if rental is not None and not rental.settled and not workspace.read_only:
            from console.cli.rent import drive_to_the_end

            drive_to_the_end(workspace, rental, timeout)
    return wait_and_report(ctx, chosen, timeout, as_json)


@run.command("stop")
@click.argument("run_id")
@click.option("--now", is_flag=True, help="End it at once, without saving.")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@json_option
@click.pass_context
def run_stop(ctx: click.Context, run_id: str, now: bool, wait: bool, as_json: bool) -> int:
    """Ask a run to finish its step, save and end. Stopping one that has ended changes nothing."""
    with fresh_workspace(ctx, patience=0.5) as workspace:
        before = workspace.operator.state(run_id, tail=False)
        state = workspace.operator.stop(run_id, graceful=not now)
    note(f"{run_id} has ended already: {before.word}" if not before.alive else f"{run_id} was asked to stop")
    if wait and state.alive:
        from console.cli.wait import wait_for_end

        state = wait_for_end(ctx, run_id, None)
    if as_json:
        emit_json({"run": run_id, "state": state.word, "was": before.word})
    else:
        line(state.word.value)
    return Exit.OK


@run.command("resume")
@click.argument("run_id")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is the run's.")
@json_option
@click.pass_context
def run_resume(ctx: click.Context, run_id: str, wait: bool, as_json: bool) -> int:
    """Go on with a run that failed, was stopped or got lost: finished stages are kept, the rest continues.

    A rented run goes on while its machine is held; with --wait it is driven to its end as by `run wait`.
    """
    with fresh_workspace(ctx, patience=0.5) as workspace:
        attempt = workspace.operator.resume(run_id)
        rental = workspace.operator.rentals.book.of_run(run_id)
        if rental is not None:
            from console.cli.rent import drive_resumed

            drive_resumed(workspace, rental, wait)
    note(f"{run_id} goes on as attempt {attempt}")
    if wait:
        from console.cli.wait import wait_and_report

        return wait_and_report(ctx, run_id, None, as_json)
    if as_json:
        emit_json({"run": run_id, "attempt": attempt})
    else:
        line(run_id)
    return Exit.OK


@run.command("metrics")
@click.argument("run_id", required=False)
@click.option("--stage", help="Only this stage.")
@click.option("--name", help="All points of this one metric, instead of the newest value of each.")
@json_option
@click.pass_context
def run_metrics(ctx: click.Context, run_id: str | None, stage: str | None, name: str | None, as_json: bool) -> None:
    """Newest values of a run's metrics, or with --name one whole curve as step and value."""
    from console.cli.metrics import print_curve, print_latest

    with fresh_workspace(ctx) as workspace:
        chosen = chosen_run(workspace, run_id)
        if name is None:
            print_latest(workspace, chosen, stage, as_json)
        else:
            print_curve(workspace, chosen, stage, name, as_json)


@run.command("logs")
@click.argument("run_id", required=False)
@click.option("--stage", help="A stage's id or name, or `job` for the supervisor.  [default: the newest]")
@click.option("--lines", "-n", default=200, show_default=True, help="How many of the last lines; 0 means all.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.pass_context
def run_logs(ctx: click.Context, run_id: str | None, stage: str | None, lines: int, follow: bool) -> int:
    """A stage's log as it was written."""
    from console.cli.logs import print_log

    with fresh_workspace(ctx) as workspace:
        chosen = chosen_run(workspace, run_id)
        target, path = workspace.operator.locate(chosen)
    return print_log(chosen, target, path, stage, lines, follow)


run.add_command(run_compare)


@run.command("replay")
@click.argument("run_id")
@click.option("--speed", type=Amount(positive=True), default=20.0, show_default=True, help="How many times as fast.")
@json_option
@click.pass_context
def run_replay(ctx: click.Context, run_id: str, speed: float, as_json: bool) -> int:
    """Play a recorded run again as a run of its own, every screen live; nothing is trained."""
    from console.replayed import replay

    with fresh_workspace(ctx, patience=0.5) as workspace:
        started = replay(workspace, run_id, speed)
    emit_json({"run": started, "of": run_id}) if as_json else line(started)
    return Exit.OK


@run.command("export")
@click.argument("run_id")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def run_export(ctx: click.Context, run_id: str, file: Path, as_json: bool) -> int:
    """Write all that the log has of a run into a new SQLite file with plain tables, for any other program."""
    from console.foreign_rows import export

    with fresh_workspace(ctx) as workspace:
        rows = export(workspace.queries, chosen_run(workspace, run_id), file)
    if as_json:
        emit_json({"run": run_id, "file": file, "rows": rows})
    else:
        line(f"{file}: " + ", ".join(f"{count:,} {name}" for name, count in rows.items()))
    return Exit.OK


@run.command("attach")
@click.option("--target", help="The machine it runs on.  [default: this machine]")
@click.option("--log", default="", help="The console log of the run, a path there.")
@click.option("--dir", "folder", default="", help="A folder there: every *.log in it, and its checkpoints.")
@click.option("--id", "run_id", default="", help="What to call the run here.")
@json_option
@click.pass_context
def run_attach(ctx: click.Context, target: str | None, log: str, folder: str, run_id: str, as_json: bool) -> int:
    """Follow a run of nanochat itself from its console log; nothing is written on its machine.

    It is a run here like any other: `run status`, `run metrics`, the curves; `run stop` ends the following only.
    """
    from console.attaching import attach

    with fresh_workspace(ctx, patience=0.5) as workspace:
        started = attach(workspace, target or "local", log, folder, run_id)
    note(f"following as {started}; `llmconsole run stop {started}` ends that, not the run itself")
    if as_json:
        emit_json({"run": started, "target": target or "local"})
    else:
        line(started)
    return Exit.OK

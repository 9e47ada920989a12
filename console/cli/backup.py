"""`ckpt backup` and `ckpt safe`: copies of one machine's checkpoints, and whether that machine may end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.exchange import STAGES, may_write
from console.cli.output import emit_json, json_option, line, note, table
from console.cli.stopping import ctrl_c_stops
from console.errors import NotFound, UsageProblem
from console.exit_codes import Exit
from console.widgets.numbers import size

if TYPE_CHECKING:
    from console.keeping.backups import Place
    from console.paths import Home
    from remote.backup.checkpoint_files import CheckpointFiles
    from remote.host import Host
    from remote.safekeeping import BackedUp, Loss, Receipt


@click.command("backup")
@click.option("--to", "--repo-id", "where", help="hub:OWNER/NAME, a folder, or ssh:TARGET:/folder.")
@click.option("--path-in-repo", "prefix", default="", help="A folder in the repository to put copies below.")
@click.option("--private/--public", "private", default=True, help="--public allows a repository that is public.")
@click.option("--repo-type", type=click.Choice(["model", "dataset"]), default="model")
@click.option("--branch", default="main", help="The branch that gets the commit.")
@click.option("--stage", type=STAGES, help="Only this stage.")
@click.option("--model-tag", "tag", help="Only this tag, such as d20.")
@click.option("--step", type=int, help="Only this step.")
@click.option("--run", "run_id", help="Only this run; one on another machine is copied from there.")
@click.option("--model-dir", "--base-dir", "model_dir", type=click.Path(), help="A base directory, or a folder in one.")
@click.option("--target", default=None, help="The machine that has them.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied; write nothing.")
@click.option("--yes", is_flag=True, help="Accepted for scripts; a backup asks nothing.")
@json_option
@click.pass_context
def backup(ctx: click.Context, where: str | None, prefix: str, private: bool, repo_type: str, branch: str,
           stage: str | None, tag: str | None, step: int | None, run_id: str | None, model_dir: str | None,
           target: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Copy every whole checkpoint to one place and prove it by reading every byte back. Exit 7: not proven."""
    from console.keeping.backups import Place, back_up, chosen_place, in_our_words
    from console.keeping.transfer_lines import narrator
    from console.paths import Home, home
    from remote.backup.box import Box
    from remote.backup.checkpoint_files import inventory
    from remote.local import LocalHost

    may_write(ctx, dry_run)
    home_ = Home(home())
    place = Place(chosen_place(home_, where).where, prefix, not private, repo_type, branch)
    place.check()
    found_host, base = _from_where(home_, target, run_id, model_dir)
    host = found_host or LocalHost()
    with in_our_words():
        listed = inventory(Box(host), base)
    chosen = [found for found in listed.checkpoints if stage in (None, found.stage) and tag in (None, found.tag)
              and step in (None, found.id.step) and _in_dir(found.folder, model_dir)]
    if not chosen:
        raise NotFound(f"no such checkpoint below {base}", "llmconsole ckpt list shows what there is")
    if dry_run:
        _tell_plan(place, chosen, as_json)
        return Exit.OK
    with ctrl_c_stops() as stop:
        done = back_up(home_, place, host, base, narrator(as_json), stop, [c.id for c in chosen], run_id)
    _tell(place, done, as_json)
    return Exit.VERIFICATION if done.failed else Exit.OK


def _tell_plan(place: Place, chosen: list[CheckpointFiles], as_json: bool) -> None:
    rows = [(found.id, size(found.bytes), found.problem or "would be copied") for found in chosen]
    if as_json:
        emit_json({"place": str(place), "checkpoints": [{"checkpoint": str(i), "state": s} for i, _, s in rows]})
        return
    note(f"to {place}:")
    table(("checkpoint", "size", "state"), rows)


def _tell(place: Place, done: BackedUp, as_json: bool) -> None:
    if as_json:
        emit_json({"place": str(place), "proven": [_receipt(receipt) for receipt in done.receipts],
                   "failed": [_loss(loss) for loss in done.failed]})
        return
    for receipt in done.receipts:
        line(f"proven  {receipt.checkpoint}  {receipt.location}")
    for loss in done.failed:
        line(f"NOT     {loss.checkpoint}  {loss.reason}")


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {"checkpoint": str(receipt.checkpoint), "location": receipt.location, "level": receipt.level,
            "proven_at": receipt.proven_at, "files": receipt.files}


def _loss(loss: Loss) -> dict[str, Any]:
    return {"checkpoint": str(loss.checkpoint), "bytes": loss.bytes, "reason": loss.reason}


def _from_where(home: Home, target: str | None, run_id: str | None, model_dir: str | None) -> tuple[Host | None, str]:
    """The machine and the base directory on it; None is this machine."""
    from console.workspace import Workspace
    from engine.rundir import base_dir

    if model_dir is not None:
        return None, str(_base_of(Path(model_dir).expanduser().absolute()))
    if run_id is not None:
        return _of_run(run_id)
    if target in (None, "local"):
        return None, str(base_dir())
    with Workspace.open(home.path, read_only=True) as workspace:
        known = workspace.hosts.target(str(target))
        if not known.base:
            raise UsageProblem(f"nobody knows the base directory of {target}", "name a run with --run")
        return workspace.hosts.get(str(target)), known.base


def _of_run(run_id: str) -> tuple[Host | None, str]:
    """Where a run's checkpoints are; one that came by import is known by its folder alone. Raises NotFound."""
    from console.workspace import Workspace
    from engine.rundir import RunDir, base_dir, runs_dir, valid_run_id

    if valid_run_id(run_id):
        with Workspace.open(read_only=True) as workspace:
            run = workspace.queries.run(run_id)
            if run is not None and run.target != "local":
                return workspace.hosts.get(run.target), f"{run.path}/base"
        folder = RunDir(runs_dir(base_dir()) / run_id)
        if folder.path.is_dir():
            return None, str(folder.base)
    raise NotFound(f"no run is called {run_id!r}", "llmconsole run list shows all runs")


def _base_of(folder: Path) -> Path:
    """The base directory that a checkpoint folder lies in; the folder itself when it is one."""
    from remote.backup.checkpoint_files import STAGE_OF

    for above in (folder, *folder.parents[:2]):
        if above.name in STAGE_OF:
            return above.parent
    return folder


def _in_dir(folder: str, model_dir: str | None) -> bool:
    return model_dir is None or f"{folder}/".startswith(f"{Path(model_dir).expanduser().absolute()}/")


@click.command("safe")
@click.option("--to", "where", help="The place that must have the copies.")
@click.option("--run", "run_id", help="The run whose machine is to end.")
@click.option("--target", default=None, help="The machine that is to end.")
@json_option
def safe(where: str | None, run_id: str | None, target: str | None, as_json: bool) -> int:
    """Whether ending the machine would lose nothing. Exit 0: safe. 7: it names what would be lost."""
    from console.keeping.backups import chosen_place, in_our_words, keeper_for
    from console.paths import Home, home
    from remote.backup.box import Box
    from remote.backup.checkpoint_files import inventory
    from remote.local import LocalHost

    home_ = Home(home())
    place = chosen_place(home_, where)
    host, base = _from_where(home_, target, run_id, None)
    with in_our_words():
        losses = keeper_for(home_, place).unproven(host or LocalHost(), base)
        some = bool(losses) or bool(inventory(Box(host or LocalHost()), base).checkpoints)
    if as_json:
        emit_json({"safe": not losses, "place": str(place), "losses": [_loss(loss) for loss in losses]})
    else:
        _tell_safe(place, host, base, losses, some)
    return Exit.VERIFICATION if losses else Exit.OK


def _tell_safe(place: Place, host: Host | None, base: str, losses: list[Loss], some: bool) -> None:
    from console.keeping.shelf import same_disk

    for loss in losses:
        line(f"NOT SAFE  {loss.checkpoint}  {size(loss.bytes)}  {loss.reason}")
    if not some:
        line(f"safe: there is no checkpoint below {base}, so there is none to lose")
    elif not losses:
        line(f"safe: the newest checkpoint of every stage below {base} was read back from {place}")
        if host is None and not place.repo and same_disk(Path(place.where).expanduser(), Path(base)):
            note(f"{place.where} is on the very disk of {base}: a broken disk takes both")

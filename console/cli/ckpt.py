"""`ckpt`: where checkpoints are; copying them elsewhere, proving it, bringing them back, deleting what is safe."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.exchange import STAGES, export, import_, may_write
from console.cli.output import emit_json, json_option, line, note, table, when
from console.errors import ConsoleError, UsageProblem
from console.exit_codes import Exit

if TYPE_CHECKING:
    from console.keeping.shelf import Item, Shelf
    from remote.host import Host
    from remote.safekeeping import Loss



@click.group()
def ckpt() -> None:
    """Checkpoints: where each is, and whether losing this machine would lose it."""


def _shelf() -> Shelf:
    from console.keeping.shelf import survey
    from console.paths import Home, home
    from engine.rundir import base_dir

    return survey(Home(home()), base_dir())


@ckpt.command("list")
@json_option
def ckpt_list(as_json: bool) -> None:
    """Every checkpoint that is known: here, and in copies, proven or not."""
    shelf = _shelf()
    if as_json:
        emit_json({"checkpoints": [_facts(item) for item in shelf.items], "damaged_receipts": shelf.damaged})
        return
    if not shelf.items:
        note("no checkpoints yet; `llmconsole run start tiny --wait` makes some in a few minutes")
    table(("checkpoint", "val bpb", "size", "here", "copies", "made"),
          [(item.name, item.val_bpb, _gb(item.bytes), _here(item), _copies(item), when(item.saved))
           for item in shelf.items])
    for path in shelf.damaged:
        note(f"a receipt that cannot be trusted any more: {path}")


def _facts(item: Item) -> dict[str, Any]:
    return {"name": str(item.name), "run": item.name.run, "stage": item.name.stage, "tag": item.name.tag,
            "step": item.name.step, "bytes": item.bytes, "val_bpb": item.val_bpb, "saved": item.saved,
            "here": item.here is not None, "folder": item.here.folder if item.here else None,
            "problem": item.here.problem if item.here else None,
            "copies": [{"location": kept.receipt.location, "level": kept.receipt.level, "withdrawn": kept.withdrawn,
                        "proven_at": kept.receipt.proven_at, "same": kept in item.proven} for kept in item.copies]}


def _gb(count: int) -> str:
    from console.widgets.numbers import size

    return size(count)


def _here(item: Item) -> str:
    return "-" if item.here is None else item.here.problem or "whole"


def _copies(item: Item) -> str:
    told = [f"proven: {kept.receipt.location}" for kept in item.proven]
    told += [f"WRONG: {kept.receipt.location} ({kept.withdrawn})" for kept in item.wrong]
    return "; ".join(told) or "none"


@ckpt.command("backup")
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
def ckpt_backup(ctx: click.Context, where: str | None, prefix: str, private: bool, repo_type: str, branch: str,
                stage: str | None, tag: str | None, step: int | None, run_id: str | None, model_dir: str | None,
                target: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Copy every whole checkpoint to one place and prove it by reading every byte back. Exit 7: not proven."""
    from console.keeping.backups import back_up, chosen_place, in_our_words
    from console.keeping.transfer_lines import narrator
    from console.paths import Home, home
    from remote.backup.box import Box
    from remote.backup.checkpoint_files import inventory
    from remote.local import LocalHost

    may_write(ctx, dry_run)
    home_ = Home(home())
    chosen = chosen_place(home_, where)
    place = type(chosen)(chosen.where, prefix, not private, repo_type, branch)
    host, base = _from_where(home_, target, run_id, model_dir)
    with in_our_words():
        listed = inventory(Box(host or LocalHost()), base)
    only = [found.id for found in listed.checkpoints if stage in (None, found.stage) and tag in (None, found.tag)
            and step in (None, found.id.step) and _in_dir(found.folder, model_dir)]
    if not only:
        from console.errors import NotFound

        raise NotFound(f"no such checkpoint below {base}", "llmconsole ckpt list shows what there is")
    if dry_run:
        rows = [(found.id, _gb(found.bytes), found.problem or "would be copied") for found in listed.checkpoints
                if found.id in only]
        if as_json:
            emit_json({"place": str(place), "checkpoints": [{"checkpoint": str(i), "state": s} for i, _, s in rows]})
        else:
            note(f"to {place}:")
            table(("checkpoint", "size", "state"), rows)
        return 0
    stop = threading.Event()
    done = back_up(home_, place, host or LocalHost(), base, narrator(as_json), stop, only, run_id)
    if as_json:
        emit_json({"place": str(place), "proven": [_receipt(receipt) for receipt in done.receipts],
                   "failed": [_loss(loss) for loss in done.failed]})
    else:
        for receipt in done.receipts:
            line(f"proven  {receipt.checkpoint}  {receipt.location}")
        for loss in done.failed:
            line(f"NOT     {loss.checkpoint}  {loss.reason}")
    return Exit.VERIFICATION if done.failed else Exit.OK


def _receipt(receipt: Any) -> dict[str, Any]:
    return {"checkpoint": str(receipt.checkpoint), "location": receipt.location, "level": receipt.level,
            "proven_at": receipt.proven_at, "files": receipt.files}


def _loss(loss: Loss) -> dict[str, Any]:
    return {"checkpoint": str(loss.checkpoint), "bytes": loss.bytes, "reason": loss.reason}


def _from_where(home: Any, target: str | None, run_id: str | None, model_dir: str | None) -> tuple[Host | None, str]:
    """The machine and the base directory on it; None is this machine."""
    from console.workspace import Workspace
    from engine.rundir import RunDir, base_dir, runs_dir

    if model_dir is not None:
        return None, str(_base_of(Path(model_dir).expanduser().absolute()))
    if run_id is not None:
        with Workspace.open(read_only=True) as workspace:
            run = workspace.queries.run(run_id)
            if run is not None and run.target != "local":
                return workspace.hosts.get(run.target), f"{run.path}/base"
        return None, str(RunDir(runs_dir(base_dir()) / run_id).base)
    if target not in (None, "local"):
        with Workspace.open(read_only=True) as workspace:
            known = workspace.hosts.target(str(target))
            if not known.base:
                raise UsageProblem(f"nobody knows the base directory of {target}", "name a run with --run")
            return workspace.hosts.get(str(target)), known.base
    return None, str(base_dir())


def _base_of(folder: Path) -> Path:
    """The base directory that a checkpoint folder lies in; the folder itself when it is one."""
    from remote.backup.checkpoint_files import STAGE_OF

    for above in (folder, *folder.parents[:2]):
        if above.name in STAGE_OF:
            return above.parent
    return folder


def _in_dir(folder: str, model_dir: str | None) -> bool:
    return model_dir is None or f"{folder}/".startswith(f"{Path(model_dir).expanduser().absolute()}/")


@ckpt.command("safe")
@click.option("--to", "where", help="The place that must have the copies.")
@click.option("--run", "run_id", help="The run whose machine is to end.")
@click.option("--target", default=None, help="The machine that is to end.")
@json_option
def ckpt_safe(where: str | None, run_id: str | None, target: str | None, as_json: bool) -> int:
    """Whether ending the machine would lose nothing. Exit 0: safe. 7: it names what would be lost."""
    from console.keeping.backups import chosen_place, in_our_words, keeper_for
    from console.keeping.shelf import same_disk
    from console.paths import Home, home
    from remote.local import LocalHost

    home_ = Home(home())
    host, base = _from_where(home_, target, run_id, None)
    place = chosen_place(home_, where)
    with in_our_words():
        losses = keeper_for(home_, place).unproven(host or LocalHost(), base)
    if as_json:
        emit_json({"safe": not losses, "place": str(place), "losses": [_loss(loss) for loss in losses]})
    elif losses:
        for loss in losses:
            line(f"NOT SAFE  {loss.checkpoint}  {_gb(loss.bytes)}  {loss.reason}")
    else:
        line(f"safe: the newest checkpoint of every stage below {base} was read back from {place}")
        if host is None and not place.repo and same_disk(Path(place.where).expanduser(), Path(base)):
            note(f"{place.where} is on the very disk of {base}: a broken disk takes both")
    return Exit.VERIFICATION if losses else Exit.OK


@ckpt.command("verify")
@click.argument("name", required=False)
@json_option
@click.pass_context
def ckpt_verify(ctx: click.Context, name: str | None, as_json: bool) -> int:
    """Read every byte of the copies again, of all or of one checkpoint. Exit 7: one is not what was sent."""
    from console.keeping.backups import verify
    from console.keeping.transfer_lines import narrator
    from console.paths import Home, home

    may_write(ctx)
    shelf = _shelf()
    items = [shelf.find(name)] if name else shelf.items
    copies = [kept for item in items for kept in item.copies]
    if not copies:
        note("there are no copies to verify; `llmconsole ckpt backup` makes some")
    results = verify(Home(home()), copies, narrator(as_json), threading.Event())
    if as_json:
        emit_json({"copies": [{"location": kept.receipt.location, "ok": not wrong, "problem": wrong}
                              for kept, wrong in results]})
    else:
        for kept, wrong in results:
            line(f"{'WRONG ' if wrong else 'whole '} {kept.receipt.location}" + (f"  {wrong}" if wrong else ""))
    return Exit.VERIFICATION if any(wrong for _, wrong in results) else Exit.OK


@ckpt.command("restore")
@click.argument("name")
@click.option("--into", help="A run's name, or a base directory; default: where it came from.")
@click.option("--no-optimizer", is_flag=True, help="Leave out what only a resume needs.")
@click.option("--dry-run", is_flag=True, help="Say what would be brought from where; write nothing.")
@json_option
@click.pass_context
def ckpt_restore(ctx: click.Context, name: str, into: str | None, no_optimizer: bool, dry_run: bool,
                 as_json: bool) -> int:
    """Bring a checkpoint back from a proven copy, every byte compared. What is in its place is moved aside."""
    from console.keeping.backups import restore
    from console.keeping.transfer_lines import narrator
    from console.paths import Home, home

    may_write(ctx, dry_run)
    item = _shelf().find(name)
    base = destination(into, item.name.run)
    if dry_run:
        for kept in item.proven:
            line(f"{item.name}  {_gb(item.bytes)}  from {kept.receipt.location}  to {base}")
        return 0 if item.proven else Exit.VERIFICATION
    done = restore(Home(home()), item, base, narrator(as_json), threading.Event(), optimizer=not no_optimizer)
    if as_json:
        emit_json({"folder": done.folder, "step": done.step, "moved_aside": done.moved_aside, "files": done.verdicts})
        return 0
    table(("file", "bytes", "verdict"), [(v.file, f"{v.bytes:,}", v.word) for v in done.verdicts])
    if done.moved_aside:
        note(f"what was there before is in {done.moved_aside}")
    note(f"{item.name} is whole in {done.folder}")
    return 0


def destination(into: str | None, run: str) -> Path:
    """The base directory that a checkpoint goes below."""
    from console.keeping.backups import base_for
    from engine.rundir import base_dir, valid_run_id

    if into is None:
        return base_for(base_dir(), run)
    if "/" not in into and valid_run_id(into):
        return base_for(base_dir(), into)
    return Path(into).expanduser().absolute()


@ckpt.command("prune")
@click.option("--keep-best", type=click.IntRange(min=1), help="Keep so many with the best validation result.")
@click.option("--keep-last", type=click.IntRange(min=1), help="Keep so many of the newest.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@json_option
@click.pass_context
def ckpt_prune(ctx: click.Context, keep_best: int | None, keep_last: int | None, dry_run: bool, yes: bool,
               as_json: bool) -> int:
    """Delete local checkpoints that are proven elsewhere and neither among the best nor the last. Never a last copy."""
    from console.keeping.backups import plan_prune, remove_local
    from console.paths import Home, home
    from console.settings import load
    from engine.rundir import base_dir

    may_write(ctx, dry_run)
    home_ = Home(home())
    policy = load(home_.config).backup
    plan = plan_prune(home_, base_dir(), keep_best or policy.keep_best, keep_last or policy.keep_last)
    if not as_json:
        rows = [(item.name, _gb(item.bytes), "delete") for item in plan.remove]
        table(("checkpoint", "size", "what"), rows + [(item.name, _gb(item.bytes), f"keep: {reason}")
                                                      for item, reason in plan.keep])
    if plan.remove and not dry_run:
        words = "yes" if yes else click.prompt(f"{_gb(plan.bytes)} would be freed. Type prune to delete", err=True)
        if not yes and words.strip() != "prune":
            raise ConsoleError("nothing was deleted")
        for item in plan.remove:
            remove_local(item)
        note(f"freed {_gb(plan.bytes)}")
    if as_json:
        emit_json({"dry_run": dry_run, "bytes": plan.bytes, "remove": [str(item.name) for item in plan.remove],
                   "keep": {str(item.name): reason for item, reason in plan.keep}})
    return 0


for verb in (import_, export):
    ckpt.add_command(verb)

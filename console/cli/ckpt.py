"""`ckpt`: where checkpoints are; reading copies again, bringing them back, deleting what is safe elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.asking import typed
from console.cli.backup import backup, safe
from console.cli.exchange import export, import_, may_write
from console.cli.output import emit_json, json_option, line, note, table, when
from console.cli.stopping import ctrl_c_stops
from console.exit_codes import Exit
from console.widgets.numbers import size

if TYPE_CHECKING:
    from console.keeping.shelf import Item, Shelf


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
    if shelf.items:
        table(("checkpoint", "val bpb", "size", "here", "copies", "made"),
              [(item.name, item.val_bpb, size(item.bytes), _here(item), _copies(item), when(item.saved))
               for item in shelf.items])
    else:
        note("no checkpoints yet; `llmconsole run start tiny --wait` makes some in a few minutes")
    for path in shelf.damaged:
        note(f"a receipt that cannot be trusted any more: {path}")


def _facts(item: Item) -> dict[str, Any]:
    return {"name": str(item.name), "run": item.name.run, "stage": item.name.stage, "tag": item.name.tag,
            "step": item.name.step, "bytes": item.bytes, "val_bpb": item.val_bpb, "saved": item.saved,
            "here": item.here is not None, "folder": item.here.folder if item.here else None,
            "problem": item.here.problem if item.here else None,
            "copies": [{"location": kept.receipt.location, "level": kept.receipt.level, "withdrawn": kept.withdrawn,
                        "proven_at": kept.receipt.proven_at, "same": kept in item.proven} for kept in item.copies]}


def _here(item: Item) -> str:
    return "-" if item.here is None else item.here.problem or "whole"


def _copies(item: Item) -> str:
    told = [f"proven: {kept.receipt.location}" for kept in item.proven]
    told += [f"WRONG: {kept.receipt.location} ({kept.withdrawn})" for kept in item.wrong]
    return "; ".join(told) or "none"


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
    with ctrl_c_stops() as stop:
        results = verify(Home(home()), copies, narrator(as_json), stop)
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
            line(f"{item.name}  {size(item.bytes)}  from {kept.receipt.location}  to {base}")
        return 0 if item.proven else Exit.VERIFICATION
    with ctrl_c_stops() as stop:
        done = restore(Home(home()), item, base, narrator(as_json), stop, optimizer=not no_optimizer)
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
    from console.keeping.pruning import plan_prune, remove_local
    from console.paths import Home, home
    from console.settings import load
    from engine.rundir import base_dir

    may_write(ctx, dry_run)
    home_ = Home(home())
    policy = load(home_.config).backup
    plan = plan_prune(home_, base_dir(), keep_best or policy.keep_best, keep_last or policy.keep_last)
    if not as_json:
        rows = [(item.name, size(item.bytes), "delete") for item in plan.remove]
        table(("checkpoint", "size", "what"), rows + [(item.name, size(item.bytes), f"keep: {reason}")
                                                      for item, reason in plan.keep])
    if plan.remove and not dry_run:
        if not yes:
            typed(f"{size(plan.bytes)} would be freed. Type prune to delete", "prune")
        for item in plan.remove:
            remove_local(item)
        note(f"freed {size(plan.bytes)}")
    if as_json:
        emit_json({"dry_run": dry_run, "bytes": plan.bytes, "remove": [str(item.name) for item in plan.remove],
                   "keep": {str(item.name): reason for item, reason in plan.keep}})
    return 0


for verb in (backup, safe, import_, export):
    ckpt.add_command(verb)

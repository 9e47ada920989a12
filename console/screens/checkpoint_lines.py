"""What the checkpoints screen writes: a row per checkpoint, the moving files, and whether anything would be lost.

Pure: facts in, plain styled text out. Foreign names are cleaned here.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from console.keeping.shelf import Item, Shelf
from console.keeping.transfer_lines import PHASES, eta
from console.keeping.transfers import Board
from console.text import clean_line
from console.widgets.numbers import ago, bar, grouped, short, size
from remote.backup.checkpoint_files import STAGE_FOLDERS
from remote.backup.receipts import Kept
from remote.safekeeping import Transfer

MUTED = "$foreground-muted"


def header(narrow: bool) -> str:
    """The names of the columns, over `row`."""
    if narrow:
        return f"  {'run':<18}{'from':<5}{'step':>8}{'val bpb':>9}  {'where':<16}verified"
    return (f"  {'run':<22}{'from':<5}{'step':>8}{'val bpb':>9}{'size':>10}  {'here':<7}{'target':<10}{'Hub':<9}"
            f"{'folder':<8}{'verified':<15}age")


def row(item: Item, now: float, narrow: bool, moving: str = "") -> Content:
    """One checkpoint; what is wrong with it or its copies, or what is done with it now, is said in its row."""
    name = item.name
    run = clean_line(name.run, 17 if narrow else 21)
    head = f"  {run:<{18 if narrow else 22}}{name.stage:<5}{grouped(name.step):>8}{short(item.val_bpb, 4):>9}"
    word, colour = (moving, "$text-accent") if moving else verdict(item)
    if narrow:
        return Content.assemble(f"{head}  {_where(item):<16}", (word, colour))
    there = clean_line(item.away.target, 9) if item.away else "–"
    cells = (f"{head}{size(item.bytes):>10}  {'yes' if item.here else '–':<7}{there:<10}"
             f"{_hub(item):<9}{_held(item) or '–':<8}")
    return Content.assemble(cells, (f"{word:<15}", colour), (ago(item.saved, now) if item.saved else "", MUTED))


def moving(item: Item, board: Board) -> str:
    """What a transfer does with this checkpoint now, in a word and a share; "" when nothing."""
    place = f"{STAGE_FOLDERS[item.name.stage]}/{item.name.tag}"
    mine = [t for t in board.transfers if t.checkpoint.step == item.name.step and t.checkpoint.folder in (
        place, f"runs/{item.name.run}/base/{place}")] if board.busy else []
    if not mine:
        return ""
    if any(transfer.note for transfer in mine):
        return "waits, retries"
    done, total = sum(t.done for t in mine), sum(t.total for t in mine)
    return f"{PHASES.get(mine[0].phase, mine[0].phase)} {done / max(total, 1):.0%}"


def verdict(item: Item) -> tuple[str, str]:
    """The word for how safe it is, and its colour."""
    if item.proven:
        count = len(item.proven[0].receipt.files)
        told = f"✓ {count}/{count} · {len(item.wrong)} ✗" if item.wrong else f"✓ {count}/{count} files"
        return told, "$text-success"
    if item.wrong:
        return f"✗ {clean_line(item.wrong[0].withdrawn, 200)}", "$text-error"
    if item.here is not None and item.here.problem:
        return f"✗ {clean_line(item.here.problem, 200)}", "$text-error"
    if item.copies:
        return "! changed since", "$text-warning"
    return "– only there" if item.here is None else "– only here", "$text-warning"


def _where(item: Item) -> str:
    words = [word for word, there in (("here", item.here), ("hub", _in(item, "hub")), ("folder", _held(item)))
             if there]
    return "+".join(words) or (clean_line(item.away.target, 9) if item.away else "–")


def _in(item: Item, kind: str) -> list[Kept]:
    return [kept for kept in item.proven if kept.receipt.destination.startswith(f"{kind}:")]


def _held(item: Item) -> str:
    """A copy in a folder, here or on another machine."""
    return "yes" if _in(item, "folder") else "by ssh" if _in(item, "ssh") else ""


def _hub(item: Item) -> str:
    held = _in(item, "hub")
    return f"{held[0].revision[:6]}…" if held else "–"


def only_copies(shelf: Shelf) -> list[Item]:
    """The newest whole checkpoint of each stage that has no proven copy beyond the disk or machine where it is."""
    newest: dict[tuple[str, str, str], Item] = {}
    for item in shelf.items:
        key = (item.name.run, item.name.stage, item.name.tag)
        whole = item.away is not None or (item.here is not None and item.here.problem is None)
        if whole and (key not in newest or newest[key].name.step < item.name.step):
            newest[key] = item
    return [item for item in newest.values() if not shelf.elsewhere(item)]


def safe_line(shelf: Shelf, asked: str) -> Content:
    """Whether ending the machine would lose anything, told from receipts; `asked` is what the gate itself said last."""
    if asked:
        good = asked.startswith("YES")
        return Content.assemble("Safe to lose this machine? ", (asked, "$text-success" if good else "bold $text-error"))
    alone = only_copies(shelf)
    if alone:
        names = ", ".join(f"{clean_line(i.name.run, 30)} {i.name.stage} {i.name.step:,}" for i in alone[:3])
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        verb, total = "exists" if len(alone) == 1 else "exist", size(sum(i.bytes for i in alone))
        where = "on this disk" if any(item.proven for item in alone) else "in one place"
        lost = f"NO: {names}{more} {verb} only {where} ({total})"
        return Content.assemble("Safe to lose this machine? ", (lost, "bold $text-error"))
    told = "yes by the receipts; S asks the copies" if shelf.items else "there is nothing to lose yet"
    return Content.assemble("Safe to lose this machine? ", (told, "$text-success"))


def policy_line(place: str, keep_best: int, keep_last: int) -> Content:
    text = (f"Policy: copies go to {clean_line(place, 48)} · prune keeps best {keep_best}, last {keep_last} and what "
            "is not proven elsewhere")
    return Content.styled(text, MUTED)


def transfer_lines(board: Board, width: int, limit: int) -> list[Content]:
    """The files that move, and why some wait."""
    lines = [_moving(transfer, width) for transfer in board.transfers[:limit]]
    lines += [Content.styled(f"  ! {clean_line(text, max(width - 6, 20))}", "$text-warning") for text in board.retries]
    return lines[:limit + 2]


def _moving(transfer: Transfer, width: int) -> Content:
    share = transfer.done / transfer.total if transfer.total else 0.0
    cells = max(min(width - 84, 30), 8)
    rate = f"{size(transfer.rate)}/s" if transfer.rate else ""
    file = clean_line(transfer.file or transfer.note, 26)
    return Content.assemble(
        f"  {PHASES.get(transfer.phase, transfer.phase):<9}", f"{file:<27}", (bar(share, cells), "$accent"),
        f" {share:>4.0%}  {size(transfer.done):>9} / {size(transfer.total):<9} {rate:>11}  {eta(transfer)}")


def details(item: Item) -> list[str]:
    """Everything about one checkpoint, a line each."""
    lines = [f"size: {size(item.bytes)}"]
    if item.here is not None:
        lines += [f"folder: {item.here.folder}", f"optimizer state of {item.here.world_size} processes",
                  f"problem: {item.here.problem or 'none'}"]
    for kept in item.copies:
        state = f"WRONG: {kept.withdrawn}" if kept.withdrawn else "every byte was read back" if kept.stands else "?"
        lines += [f"copy: {kept.receipt.location}", f"  {state}, {ago(kept.receipt.proven_at)}"]
    return lines or ["nothing is known of it"]


def prune_lines(remove: Sequence[Item], keep: Sequence[tuple[Item, str]]) -> list[Content]:
    """What pruning would do, nothing done yet."""
    lines = [Content.assemble(("  delete  ", "$text-error"), f"{item.name}  {size(item.bytes)}")
             for item in remove[:12]]
    lines += [Content.styled(f"  keep    {item.name}: {clean_line(reason, 80)}", MUTED) for item, reason in keep[:12]]
    hidden = max(len(remove) - 12, 0) + max(len(keep) - 12, 0)
    return lines + ([Content(f"  and {hidden} more")] if hidden else [])

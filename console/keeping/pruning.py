"""Which checkpoints on this machine may go: proven elsewhere, asked for now, and not among those worth keeping.

It deletes one checkpoint when told to, and nothing by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from console.errors import ConsoleError
from console.keeping import shelf
from console.keeping.backups import in_our_words, keeper_of
from console.keeping.shelf import Item
from console.paths import Home


@dataclass(frozen=True)
class Pruned:
    """What pruning removes and what stays, each with the reason."""

    remove: tuple[Item, ...]
    keep: tuple[tuple[Item, str], ...]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.remove)


def plan_prune(home: Home, base: Path, keep_best: int, keep_last: int, check: bool = True) -> Pruned:
    """Which local checkpoints may go: proven elsewhere, not among the best or last of their folder.

    With `check`, each copy is asked for now; one that does not answer is no reason to delete anything.
    """
    items = [item for item in shelf.survey(home, base).items if item.here is not None]
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.name.run, item.name.stage, item.name.tag), []).append(item)
    remove, keep = [], []
    for group in groups.values():
        whole = [item for item in group if item.here is not None and item.here.problem is None]
        last = {item.name for item in sorted(whole, key=lambda i: -i.name.step)[:keep_last]}
        scored = [item for item in whole if item.val_bpb is not None]
        best = {item.name for item in sorted(scored, key=lambda i: i.val_bpb or 0.0)[:keep_best]}
        for item in group:
            reason = _why_keep(home, base, item, last, best, check)
            if reason:
                keep.append((item, reason))
            else:
                remove.append(item)
    return Pruned(tuple(remove), tuple(keep))


def _why_keep(home: Home, base: Path, item: Item, last: Collection[shelf.Name], best: Collection[shelf.Name],
              check: bool) -> str:
    if item.name in last:
        return "one of the last"
    if item.name in best:
        return "one of the best"
    return only_copy(home, base, item, check)


def only_copy(home: Home, base: Path, item: Item, check: bool = True) -> str:
    """Why this machine's copy must stay, '' when another one is proven and still there."""
    if item.here is None or item.here.problem is not None:
        return item.here.problem or "" if item.here else "it is not here"
    if not item.proven:
        return "no proven copy elsewhere"
    if not check:
        return ""
    inside = [kept for kept in item.proven if kept.receipt.destination == f"folder:{base}"]
    for kept in item.proven:
        if kept in inside:
            continue
        try:
            with in_our_words():
                keeper = keeper_of(home, kept)
                if keeper.holds(item.here, kept) and keeper.resolves(kept):
                    return ""
        except ConsoleError as error:
            return f"its copy could not be asked for: {error}"
    return "its copy is not there any more, or is not this content"


def remove_local(item: Item) -> int:
    """Delete one checkpoint's files on this machine; bytes freed. The manifest goes first: then it is none any more."""
    if item.here is None:
        return 0
    folder, step = Path(item.here.folder), item.name.step
    (folder / f"manifest_{step:06d}.json").unlink(missing_ok=True)
    for name in sorted(item.here.files, key=lambda name: not name.startswith("meta_")):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    return item.bytes

"""Every checkpoint that is known and where it is: on this machine, on a target, in a folder, on the Hub; proven or not.

Told from listings and receipts alone, so that a screen may ask each second: no file is hashed and no destination asked.
What it would take to lose nothing is the business of the gate (`remote.safekeeping`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console.errors import NotFound
from console.paths import Home
from remote.backup.box import Box
from remote.backup.checkpoint_files import STAGE_FOLDERS, CheckpointFiles, inventory
from remote.backup.manifest import run_label
from remote.backup.receipts import Kept, ReceiptBook
from remote.errors import NoSuchFile
from remote.local import LocalHost

_PLACE = re.compile(r"(?:.*/)?runs/([^/]+)/(base|mid|sft|rl)/([^/]+)/([0-9]{6,9})(?:-[0-9a-f]{12}(?:-[0-9]+)?)?")
_ORDER = tuple(STAGE_FOLDERS)


@dataclass(frozen=True)
class Name:
    """What people call a checkpoint, wherever its copies are."""

    run: str
    stage: str
    tag: str
    step: int

    def __str__(self) -> str:
        return f"{self.run}/{self.stage}/{self.tag}@{self.step}"


@dataclass(frozen=True)
class Away:
    """A checkpoint on another machine, as its run reported it."""

    name: Name
    target: str
    bytes: int
    saved: float


@dataclass(frozen=True)
class Item:
    """One checkpoint. `here` is None when it is not on this machine; `copies` are receipts, withdrawn ones too."""

    name: Name
    here: CheckpointFiles | None = None
    copies: tuple[Kept, ...] = ()
    away: Away | None = None

    @property
    def proven(self) -> tuple[Kept, ...]:
        """Copies that are this very content, as far as names and sizes tell, and were read back whole."""
        return tuple(kept for kept in self.copies if kept.stands and (self.here is None or _alike(self.here, kept)))

    @property
    def wrong(self) -> tuple[Kept, ...]:
        """Copies that turned out not to be what was sent."""
        return tuple(kept for kept in self.copies if kept.withdrawn)

    @property
    def bytes(self) -> int:
        if self.here is not None:
            return self.here.bytes
        if self.copies:
            return sum(file.bytes for file in self.copies[0].receipt.files.values())
        return self.away.bytes if self.away else 0

    @property
    def val_bpb(self) -> float | None:
        return self.here.val_bpb if self.here else None

    @property
    def saved(self) -> float:
        """When it was made, as far as is known here; seconds of wall time."""
        if self.here is not None:
            return self.here.created or self.here.changed
        return self.away.saved if self.away else max((kept.receipt.proven_at for kept in self.copies), default=0.0)


@dataclass(frozen=True)
class Shelf:
    """All of them, a run's together, the newest first. `damaged` are receipt files that cannot be trusted.

    `near` are destinations on the very disk that the checkpoints here are on: a broken disk takes both.
    """

    items: tuple[Item, ...]
    damaged: tuple[Path, ...] = field(default=())
    near: frozenset[str] = frozenset()

    def elsewhere(self, item: Item) -> tuple[Kept, ...]:
        """Proven copies that outlive the place where the checkpoint is now."""
        return tuple(kept for kept in item.proven if item.here is None or kept.receipt.destination not in self.near)

    def find(self, text: str) -> Item:
        """The one that `text` names: all of its name, or a part that fits no other. Raises NotFound."""
        names = {str(item.name): item for item in self.items}
        if text in names:
            return names[text]
        fits = [item for name, item in names.items() if text and text in name]
        if len({(item.name.run, item.name.stage, item.name.tag) for item in fits}) == 1 and "@" not in text:
            return max(fits, key=lambda item: item.name.step)
        if len(fits) == 1:
            return fits[0]
        there = ", ".join(list(names)[:5]) or "none"
        raise NotFound(f"{text!r} fits {len(fits)} checkpoints" if fits else f"there is no checkpoint {text!r}",
                       f"there are: {', '.join(str(item.name) for item in fits[:5]) or there}")


def receipts(home: Home) -> ReceiptBook:
    """Where this console keeps what was proven."""
    return ReceiptBook(home.backups / "receipts")


def survey(home: Home, base: Path, away: Iterable[Away] = ()) -> Shelf:
    """What is known now: from this console's receipts, and from those that runs here left when they backed up."""
    names: dict[Name, Item] = {}
    for found in here(base):
        names[name_of(str(base), found)] = Item(name_of(str(base), found), found)
    known = [receipts(home), *map(ReceiptBook, [base / "receipts", *sorted(base.glob("runs/*/base/receipts"))])]
    for kept in _newest_word(known):
        if (name := _named(kept)) is not None:
            item = names.get(name, Item(name))
            names[name] = Item(name, item.here, (*item.copies, kept), item.away)
    for remote in away:
        item = names.get(remote.name, Item(remote.name))
        names[remote.name] = Item(remote.name, item.here, item.copies, remote)
    newest: dict[str, float] = {}
    for item in names.values():
        newest[item.name.run] = max(newest.get(item.name.run, 0.0), item.saved)
    ordered = sorted(names.values(), key=lambda i: (-newest[i.name.run], i.name.run, -_ORDER.index(i.name.stage),
                                                    i.name.tag, -i.name.step))
    folders = {kept.receipt.destination for item in ordered for kept in item.copies}
    near = frozenset(where for where in folders if where.startswith("folder:") and same_disk(Path(where[7:]), base))
    return Shelf(tuple(ordered), tuple(path for book in known for path in book.damaged()), near)


def same_disk(folder: Path, base: Path) -> bool:
    """Whether one broken disk would take both; a folder that cannot be asked is on no disk of ours."""
    try:
        return folder.stat().st_dev == base.stat().st_dev
    except OSError:
        return False


def _newest_word(books: Sequence[ReceiptBook]) -> list[Kept]:
    """Receipts of all books; where several speak of one copy, the first book's, which is the one that is kept up."""
    found: dict[tuple[str, str, str], Kept] = {}
    for kept in (kept for book in books for kept in book.all()):
        found.setdefault((kept.receipt.destination, kept.place, kept.content), kept)
    return list(found.values())


def here(base: Path) -> tuple[CheckpointFiles, ...]:
    """The checkpoints on this machine."""
    try:
        return inventory(Box(LocalHost()), str(base)).checkpoints
    except NoSuchFile:
        return ()


def name_of(base: str, found: CheckpointFiles) -> Name:
    return Name(run_label(base, found.id.folder), found.stage, found.tag, found.id.step)


def _named(kept: Kept) -> Name | None:
    match = _PLACE.fullmatch(kept.place)
    return Name(match[1], match[2], match[3], int(match[4])) if match else None


def _alike(found: CheckpointFiles, kept: Kept) -> bool:
    sizes = {name: stat.bytes for name, _, stat in found.parts()}
    return sizes == {name: file.bytes for name, file in kept.receipt.files.items()}

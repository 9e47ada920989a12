"""Every message that background work sends to the screens. Workers post these; handlers alone change what is shown.

They do not bubble: the app gets each one first and hands it to the screens that it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message

if TYPE_CHECKING:
    from console.attaching import Sight
    from console.crosshair import StepFound
    from console.curves import Drawn
    from console.glance import Glance
    from console.keeping.shelf import Shelf
    from console.keeping.transfers import Board, Ended
    from console.plan import Plan
    from console.rental.quote import Quote
    from console.rental.rental import Rental
    from console.screens.attach_sheet import Wish
    from console.screens.picker import Choice
    from engine.catalog import ModelInfo


class _Newest(Message, bubble=False):
    """Of several waiting in the queue only the newest is delivered."""

    def can_replace(self, message: Message) -> bool:
        return type(message) is type(self)


@dataclass
class Looked(_Newest, bubble=False):
    """The state of everything was read again."""

    glance: Glance


@dataclass
class CurvesRead(_Newest, bubble=False):
    """The curves that the run screen asked for, by run and name."""

    curves: dict[tuple[str, str], Drawn]


@dataclass
class StepRead(_Newest, bubble=False):
    """Every value at the step under the crosshair."""

    found: StepFound


@dataclass
class ListRead(Message, bubble=False):
    """Something to choose from was read; `chosen` is called with the id that was chosen, if one was."""

    title: str
    choices: Sequence[Choice]
    empty: str
    chosen: Callable[[str], object]


@dataclass
class PageRead(Message, bubble=False):
    """Something to read: a title, a sentence, rows of a name and what it says."""

    title: str
    text: str
    rows: Sequence[tuple[str, str]] = ()
    same: str = ""  # the command that says the same


@dataclass
class ReadFailed(_Newest, bubble=False):
    """The run log could not be read; the last good data stays on screen."""

    text: str


@dataclass
class ActionDone(Message, bubble=False):
    """Something that the person asked for was done. `run` is the run it was about."""

    text: str
    run: str | None = None


@dataclass
class ActionRefused(Message, bubble=False):
    """Something that the person asked for was not done: why, and what to do next."""

    text: str
    next: str = ""


@dataclass
class QuoteMade(_Newest, bubble=False):
    """What renting would mean."""

    quote: Quote


@dataclass
class QuoteRefused(_Newest, bubble=False):
    """No quote could be made: why, and what to do next."""

    text: str
    next: str = ""


@dataclass
class LossesFound(Message, bubble=False):
    """What ending a rented machine now would lose."""

    rental: Rental
    losses: tuple[str, ...]


@dataclass
class KeyShown(Message, bubble=False):
    """The key that a new machine showed; '' when it is pinned already."""

    address: str
    fingerprint: str


@dataclass
class Sighted(Message, bubble=False):
    """What is at the path that was typed into the attach sheet."""

    wish: Wish
    sight: Sight


@dataclass
class SightFailed(Message, bubble=False):
    """Nothing can be followed there: why, and what to do next."""

    wish: Wish
    text: str
    next: str = ""


@dataclass
class ChatSaid(Message, bubble=False):
    """One line of the chat worker's protocol (see `engine.inference`). `side` 1 is the model beside the first."""

    event: Mapping[str, Any]
    side: int = 0


@dataclass
class ChatDied(Message, bubble=False):
    """The chat worker ended without being asked. `detail` is the end of what it wrote to stderr, cleaned."""

    detail: str
    side: int = 0


@dataclass
class MachineRead(Message, bubble=False):
    """Facts of this machine (`engine.machine.facts`, and where things are kept)."""

    facts: dict[str, Any]


@dataclass
class ModelsRead(_Newest, bubble=False):
    """The models on this machine, newest first."""

    models: tuple[ModelInfo, ...]


@dataclass
class ShelfRead(_Newest, bubble=False):
    """Every checkpoint that is known, and where it is."""

    shelf: Shelf


@dataclass
class BoardMoved(_Newest, bubble=False):
    """How far a transfer is."""

    board: Board


@dataclass
class TransferEnded(Message, bubble=False):
    """How a backup, a verification or a restore came out."""

    end: Ended


@dataclass
class PlanMade(Message, bubble=False):
    """What a start would do, to be shown and asked about."""

    plan: Plan

"""What all rentals cost at one moment, from the ledger alone: the meter of every screen, and what is shouted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from console.rental.rental import Phase, Rental

COPIES_FAIL = 3  # tries in a row, after which it is not called copying any more


@dataclass(frozen=True)
class Money:
    """In USD. `per_hour` is what may be billing right now."""

    spent: float = 0.0
    living: float = 0.0  # of that, by machines that are there now
    budget: float = 0.0  # of those
    per_hour: float = 0.0
    share: float = 0.0
    guard_in: float | None = None  # seconds, of the living one that is nearest to its limit
    shout: str = ""


NOTHING_RENTED = Money()


def money(everyone: Sequence[Rental], at: float) -> Money:
    """The meter; `at` is wall time in seconds."""
    alive = [rental for rental in everyone if rental.bills]
    return Money(sum(rental.spent(at) for rental in everyone), sum(rental.spent(at) for rental in alive),
                 sum(rental.budget_usd for rental in alive),
                 sum(rental.usd_per_hour for rental in alive if rental.pod),
                 max((rental.share(at) for rental in alive), default=0.0),
                 min((rental.guard_in(at) for rental in alive), default=None),
                 "; ".join(filter(None, (shout(rental, at) for rental in alive))))


def shout(rental: Rental, at: float) -> str:
    """What a person has to know now about a machine that bills without working; '' for one that works."""
    cannot_copy = rental.phase in (Phase.COPYING, Phase.PROVING) and rental.tries >= COPIES_FAIL
    if rental.phase is Phase.KEPT or cannot_copy:
        return f"NOT SAFE TO END, still billing: {rental.run}: {rental.note}"
    if rental.phase is Phase.HELD:
        left = int(rental.hold_left(at))
        price = f"{left // 60}:{left % 60:02d} more at ${rental.usd_per_minute:.2f}/min"
        safe = rental.proof or "copying its checkpoints"
        return f"FAILED; its machine is held {price} · M: resume, shell, give back · {rental.run}: {safe}"
    return ""

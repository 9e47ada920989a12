"""Which offer a rental tries next: those that were shown to the person, in that order, each once.

Offers are kept in the rental's row as plain facts, because what was agreed must survive a restart of the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from console.rental.rental import Rental
from remote.provider import Offer, Provider, Want, candidates


def detail_of(want: Want, offers: Sequence[Offer], wait: bool) -> dict[str, Any]:
    """What a rental remembers of what was wanted and offered; `wait` goes on asking when nothing is free."""
    return {"want": asdict(want), "offers": [asdict(offer) for offer in candidates(offers)], "tried": [], "wait": wait}


def next_offer(rental: Rental) -> Offer | None:
    """The first offer that was not refused yet and that the budget can pay for some minutes."""
    tried = set(rental.detail.get("tried", ()))
    for row in rental.detail.get("offers", ()):
        offer = offer_from(row)
        if offer.data_center + offer.gpu not in tried:
            return offer
    return None


def refreshed(rental: Rental, provider: Provider) -> dict[str, Any]:
    """The detail with what is in stock now, nothing of it tried yet."""
    want = want_from(rental.detail["want"])
    return {**rental.detail, **detail_of(want, provider.offers(want), True)}


def offer_from(row: Mapping[str, Any]) -> Offer:
    return Offer(**{**row, "warnings": tuple(row.get("warnings", ()))})


def want_from(row: Mapping[str, Any]) -> Want:
    """A Want from the lists that JSON makes of its tuples."""
    return Want(tuple(row["gpus"]), int(row["count"]), tuple(row["clouds"]), tuple(row["data_centers"]),
                str(row["min_cuda"]))

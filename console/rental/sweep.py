"""The account compared with the ledger: pods of ours that bill though their rental is over, and those of others.

Done at every start and from time to time. A listing that fails raises; it is never taken for "nothing there".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from console.rental.book import RentalBook
from console.rental.rental import Phase
from remote.provider import Pod, Provider, parse_pod_name

GRACE_S = 600.0  # after a pod's own deadline before somebody else's console ends it


@dataclass(frozen=True)
class Stray:
    """A pod with our prefix that no rental here asked for: another console's, or of a lost ledger."""

    pod: Pod
    run: str
    deadline: float
    overdue: bool


@dataclass(frozen=True)
class Sweep:
    """`reopened` are ids of rentals whose pod still bills although they were over: their end goes on."""

    reopened: tuple[str, ...] = ()
    strays: tuple[Stray, ...] = ()


def sweep(book: RentalBook, provider: Provider, now: Callable[[], float] = time.time) -> Sweep:
    """List every pod with our prefix and put each where it belongs. Raises RemoteError when that cannot be done."""
    reopened, strays = [], []
    for pod in provider.pods():
        rental = book.named(pod.name)
        if not pod.bills:
            continue
        if rental is None:
            told = parse_pod_name(pod.name)
            deadline = told.deadline if told else 0.0
            overdue = told is not None and provider.clock() > deadline + GRACE_S  # ours may be wrong by days
            strays.append(Stray(pod, told.run if told else pod.name, deadline, overdue))
        elif rental.settled or (rental.pod and rental.pod != pod.id):
            reopened.append(rental.id)
            _end_again(book, provider, rental.id, pod, rental.settled, now())
    return Sweep(tuple(reopened), tuple(strays))


def _end_again(book: RentalBook, provider: Provider, rental_id: str, pod: Pod, settled: bool, at: float) -> None:
    """A life that was thought over goes on at its end; a second pod of a living one is ended on the spot."""
    if settled:
        book.change(rental_id, at, phase=Phase.ENDING, pod=pod.id, ended=None,
                    reason="its pod was still there, so it is ended again")
    else:
        provider.terminate(pod.id)

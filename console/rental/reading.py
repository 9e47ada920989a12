"""What the provider says about one rental, written down: the pod as it is, how long it exists, and that it is gone.

Asked for rarely, because a provider that is down must not keep us from a machine that answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from console.rental.book import RentalBook
from console.rental.machine import Bench
from console.rental.rental import CLOCKS_AGREE_S, EMPTY, Phase, Rental
from remote.errors import RemoteError
from remote.provider import SYSTEM, TERMINATED, Pod, Provider

LAG_S = 180.0      # after a create, a pod that is not listed may still be there
STATUS_S = 60.0


class Reading:
    """The half of a Renter that asks; `now` is wall time in seconds."""

    def __init__(self, book: RentalBook, provider: Provider, bench: Bench, *,
                 now: Callable[[], float] = time.time) -> None:
        self._book, self._provider, self._bench, self._now = book, provider, bench, now

    def _look(self, rental: Rental) -> tuple[Rental, bool]:
        """Read the pod once a minute, and after every second failure: it may be gone, or answer at another address."""
        age = self._now() - (rental.seen or 0.0)
        if rental.tries % 2 == 1 or (rental.tries == 0 and not 0 <= age < STATUS_S):
            rental, pod = self._read(rental)
            return rental, pod is not None
        return rental, True

    def _read(self, rental: Rental) -> tuple[Rental, Pod | None]:
        """The pod as it is, written down; None when it is gone (the rental is settled then) or not listed yet."""
        pod = self._provider.get(rental.pod)
        if pod is None and 0 <= self._now() - (rental.posted or 0.0) < LAG_S:
            return rental, None
        if pod is None and not self._provider.is_gone(rental.pod):
            return rental, None
        if pod is None or pod.status == TERMINATED:
            self._gone(rental, self._why_gone(rental))
            return self._book.get(rental.id), None
        return self._book.change(
            rental.id, self._now(), seen=self._now(),
            seen_elapsed=elapsed_s(rental, pod, self._now(), self._provider.clock()),
            started=rental.started or pod.created or None, usd_per_hour=pod.usd_per_hour or rental.usd_per_hour,
            address=str(pod.ssh) if pod.ssh else rental.address), pod

    def _why_gone(self, rental: Rental) -> str:
        if rental.deadline and self._provider.clock() >= rental.deadline - 60:
            return "the pod ended itself at its deadline"
        with suppress(RemoteError):
            balance = self._provider.account().balance_usd
            if balance is not None and balance < rental.usd_per_minute:
                return "the provider ended the pod because the balance is used up"
        return "the pod was ended elsewhere"

    def _gone(self, rental: Rental, reason: str) -> float:
        self._bench.forget(rental)
        late = self._provider.clock() - rental.deadline if rental.deadline else 0.0  # nobody looked for so long
        self._book.change(rental.id, self._now(), phase=Phase.GONE, ended=self._now() - max(late, 0.0),
                          reason="; ".join(filter(None, (rental.reason, reason))))
        self._bench.bring_home(rental)  # now that nothing bills
        return 0.0

    def arm(self, rental: Rental) -> Rental:
        """Move the timer inside the pod to where the ledger wants it. One that cannot be moved now stays pending, which
        is shown, and is tried again at the next step: nothing else waits for it."""
        wanted = rental.deadline_by_budget(self._now())
        if rental.phase in EMPTY and rental.started and abs(wanted - rental.deadline) > CLOCKS_AGREE_S:
            rental = self._book.change(rental.id, self._now(), deadline=wanted)  # our clock had armed it at the create
        if not rental.timer_pending:
            return rental
        try:
            self._bench.extend(rental, rental.deadline)
        except RemoteError:
            return rental
        return self._book.change(rental.id, self._now(), armed=rental.deadline)

    def _system_line(self, pod: Pod) -> str:
        """The newest line of the system log: what it waits for. '' where it cannot be had."""
        try:
            lines = self._provider.log(pod.id, source=SYSTEM, tail=5)
        except RemoteError:
            return ""
        return lines[-1].text[:160] if lines else ""


def elapsed_s(rental: Rental, pod: Pod, now: float, theirs: float) -> float:
    """Seconds that the pod exists, by the provider's own word and clock, which is at `theirs`; never less than was
    known before. Our own clock counts only where the provider says nothing."""
    before = rental.seen_elapsed or 0.0
    if pod.uptime_s is not None:
        told = pod.uptime_s + (max(pod.started - pod.created, 0.0) if pod.started and pod.created else 0.0)
        if told >= before:
            return told
    if pod.created:  # it does not run yet, or was restarted
        return max(theirs - pod.created, before)
    return before + max(now - (rental.seen or rental.posted or now), 0.0)

"""Carries one rental from phase to phase: each call does the next thing, after writing down that it is about to.

Whatever is killed between two lines here, the next call with the same book goes on: a create whose reply was lost is
looked up by its name and never sent again, an end is asked for until the provider confirms it, and nothing is ended
while a checkpoint exists only there, unless a person typed its name. It sleeps nowhere and knows no screen; the
machine behind a pod is reached through `Bench`, so a simulation of a hundred thousand lives runs the same lines.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress

from console.rental.book import RentalBook
from console.rental.machine import Bench
from console.rental.offers import next_offer, refreshed
from console.rental.reading import LAG_S, Reading
from console.rental.rental import AT_WORK, EMPTY, Phase, Rental
from remote.errors import (
    AccessRefused,
    BadRequest,
    BalanceExhausted,
    CreateUnknown,
    CredentialRefused,
    EdgeRefused,
    HostUnreachable,
    NoCapacity,
    NoSuchPod,
    ProviderDown,
    RateLimited,
    RemoteError,
    RunnerFailed,
)
from remote.provider import (
    ERROR,
    EXITED,
    PROVISIONING,
    RUNNING,
    STARTING,
    TERMINATED,
    Offer,
    Pod,
    PodSpec,
    Provider,
    parse_pod_name,
)

SETTLE_S = 180.0   # three times the lag that listings are known to have: a create that shows no pod by then made none
FIRST_LOOKS_S, LOOKS_S = 1.0, 15.0  # between two looks for a create's pod: at first, and at most
READY_S = 720.0    # a pod that nobody can log in to after this long is ended: another one is cheaper than waiting
STOP_S = 900.0     # how long a run may take to save after it was asked to stop
STAGES_OF_A_POD = {PROVISIONING: "it is being placed", STARTING: "its image is being fetched",
                   RUNNING: "its container runs, its SSH port is not public yet"}
LOOK_S, KEPT_S = 15.0, 60.0
PACE = 1.0         # all pauses are times this; a pretended provider is asked more often
LONGEST_PAUSE_S = 60.0
MOST_FAILURES = 4   # in a row, of what answers and cannot be prepared
MOST_SILENCES = 16  # in a row, of what does not answer any more: a quarter of an hour at least
LONGEST_WAIT_S = 900.0  # that a provider may ask for; a longer pause means that our clock was set back
SAFE = "the newest checkpoint of each stage is safe elsewhere"
NEVER_READY = "nobody could log in to it in time, so it was ended before it cost more"

_ON_THE_MACHINE = AT_WORK | {Phase.PREPARING, Phase.HELD, Phase.SAVING, Phase.COPYING, Phase.PROVING, Phase.KEPT}

Compose = Callable[[Rental, Offer], PodSpec]


class Renter(Reading):
    """`advance` is called again and again, by one thread per rental; `now` is wall time in seconds."""

    def __init__(self, book: RentalBook, provider: Provider, bench: Bench, compose: Compose, *,
                 now: Callable[[], float] = time.time, jitter: Callable[[], float] = random.random) -> None:
        super().__init__(book, provider, bench, now=now)
        self._compose, self._jitter = compose, jitter
        self._steps: dict[Phase, Callable[[Rental], float]] = {
            Phase.ASKED: self._asked, Phase.CREATING: self._creating, Phase.WAITING: self._waiting,
            Phase.PREPARING: self._preparing, Phase.STARTING: self._starting, Phase.WORKING: self._working,
            Phase.HELD: self._held, Phase.SAVING: self._saving, Phase.COPYING: self._copying,
            Phase.PROVING: self._proving, Phase.KEPT: self._kept, Phase.ENDING: self._ending}

    def advance(self, rental_id: str) -> float:
        """Do the next thing in this life; seconds until there is more to do (infinite once it is settled)."""
        rental = self._book.get(rental_id)
        if rental.settled:
            return math.inf
        pause = rental.next_try - self._now()
        if 0 < pause <= LONGEST_WAIT_S and not (rental.end_asked and rental.tries == 0):
            return min(pause, LONGEST_PAUSE_S)
        try:
            rental = self._decide(rental)
            if rental.phase in _ON_THE_MACHINE:
                rental, there = self._look(rental)
                if not there:
                    return math.inf if rental.settled else 5.0
                rental = self.arm(rental)
            return math.inf if rental.settled else self._steps[rental.phase](rental)
        except (RemoteError, OSError) as error:  # OSError: of this machine, such as a full disk
            return self._failed(rental, error)

    def _to(self, rental: Rental, phase: Phase, **values: object) -> float:
        """The next phase, unless a person has moved it to another one meanwhile."""
        self._book.change(rental.id, self._now(), expect=(rental.phase,), phase=phase, **values)
        return 0.0

    def _wait(self, rental: Rental, seconds: float, note: str | None = None) -> float:
        """Nothing to do for a while; the note is what a person reads meanwhile."""
        seconds *= PACE
        if rental.tries or note not in (None, rental.note):
            self._book.change(rental.id, self._now(), note=rental.note if note is None else note, tries=0,
                              next_try=self._now() + seconds)
        return seconds

    def _failed(self, rental: Rental, error: RemoteError | OSError) -> float:
        rental = self._book.get(rental.id)
        if rental.phase in EMPTY and isinstance(error, RunnerFailed) and rental.tries >= MOST_FAILURES:
            return self._to(rental, Phase.ENDING, reason=f"it could not be prepared: {error}"[:300])
        if rental.phase is Phase.PREPARING and isinstance(error, HostUnreachable) and rental.tries >= MOST_SILENCES:
            return self._to(rental, Phase.ENDING, reason=f"it could not be reached any more: {error}"[:300])
        pause = min(2.0 * 1.7 ** min(rental.tries, 12), LONGEST_PAUSE_S) * (0.75 + self._jitter() / 2) * PACE
        if isinstance(error, RateLimited):
            pause = max(pause, min(error.wait_s, LONGEST_WAIT_S))
        self._book.change(rental.id, self._now(), tries=rental.tries + 1, next_try=self._now() + pause,
                          note=f"{error} (try {rental.tries + 1})"[:300])
        return pause

    # what a person or the budget decided, before the phase goes on

    def _decide(self, rental: Rental) -> Rental:
        phase = rental.phase
        if rental.end_asked == "now" and phase not in (Phase.ASKED, Phase.CREATING, Phase.ENDING):
            self._to(rental, Phase.ENDING, reason="ended at once, as asked")
        elif phase is Phase.ASKED and rental.end_asked:
            self._to(rental, Phase.NEVER, reason="withdrawn before anything was asked for")
        elif phase in EMPTY | AT_WORK and (reason := self._why_end(rental)) and not self._is_denied(rental):
            self._to(rental, Phase.SAVING if phase in AT_WORK else Phase.ENDING, reason=reason)
        return self._book.get(rental.id)

    def _why_end(self, rental: Rental) -> str:
        if rental.end_asked:
            return "ended as asked"
        if rental.guard_in(self._now()) <= 0:
            return f"the budget of ${rental.budget_usd:.2f} and {rental.budget_hours:g} h is nearly used up"
        return ""

    def _is_denied(self, rental: Rental) -> bool:
        """Whether the provider says otherwise: our own clock may have jumped, and its word counts. While it does not
        answer, ours does."""
        if rental.end_asked or not rental.pod:
            return False
        try:
            rental, pod = self._read(rental)
        except RemoteError:
            return False
        return rental.settled or (pod is not None and rental.guard_in(self._now()) > 0)

    # until a pod is there

    def _asked(self, rental: Rental) -> float:
        offer = next_offer(rental)
        if offer is None:
            tried = rental.detail.get("tried", ())
            if tried and set(tried) <= set(rental.detail.get("forbidden", ())):
                return self._to(rental, Phase.NEVER, reason=rental.note)
            if not rental.detail.get("wait"):
                return self._to(rental, Phase.NEVER, reason=f"no capacity: {rental.note or 'nothing is in stock'}")
            self._book.change(rental.id, self._now(), detail=refreshed(rental, self._provider))
            return self._wait(rental, 30.0 + 30.0 * self._jitter(), "nothing in stock; asking again")
        spec = self._compose(rental, offer)
        told = parse_pod_name(spec.name)
        rental = self._book.change(
            rental.id, self._now(), phase=Phase.CREATING, name=spec.name, posted=self._now(),
            deadline=told.deadline if told else 0.0, armed=told.deadline if told else 0.0,
            usd_per_hour=offer.usd_per_hour,
            note=f"{offer.count} × {offer.gpu_name} in {offer.data_center or 'any'}")
        try:
            return self._adopt(rental, self._provider.create(spec))
        except CreateUnknown as error:
            self._book.change(rental.id, self._now(), since=self._now(), note=f"{error}; it is not asked for twice")
            return 0.0
        except (NoCapacity, AccessRefused) as error:
            key = offer.data_center + offer.gpu
            later = {**rental.detail, "tried": [*rental.detail.get("tried", ()), key]}
            if isinstance(error, AccessRefused):
                later["forbidden"] = [*rental.detail.get("forbidden", ()), key]
            return self._to(rental, Phase.ASKED, note=str(error), detail=later)
        except (BalanceExhausted, BadRequest, CredentialRefused) as error:
            return self._to(rental, Phase.NEVER, reason=str(error))
        except (EdgeRefused, RateLimited, ProviderDown) as error:  # it says that nothing was created
            self._to(rental, Phase.ASKED, note=str(error))
            return self._failed(rental, error)

    def _creating(self, rental: Rental) -> float:
        """Whether the create made a pod is not known: look its name up, at once and again, until that is certain."""
        found = sorted(self._provider.find_by_name(rental.name), key=lambda pod: pod.created)
        if found:
            return self._adopt(rental, found[0])
        waited = self._now() - rental.since
        if waited < 0:  # our clock was set back: nothing is known about how long it was, so wait once more
            self._book.change(rental.id, self._now(), since=self._now())
        if waited >= SETTLE_S:
            return self._to(rental, Phase.NEVER, reason="the provider did not say whether it made the pod, and none of "
                            f"that name appeared in {SETTLE_S:.0f} s; one that comes late is ended by the next sweep")
        return self._wait(rental, min(FIRST_LOOKS_S + waited / 4, LOOKS_S),
                          "the create has no sure answer: looking for the pod by its name, "
                          f"{waited:.0f} of {SETTLE_S:.0f} s; it is not asked for twice")

    def _adopt(self, rental: Rental, pod: Pod) -> float:
        self._book.change(rental.id, self._now(), phase=Phase.WAITING, pod=pod.id, started=pod.created or None,
                          usd_per_hour=pod.usd_per_hour or rental.usd_per_hour)
        return 2.0

    # until the run is at work

    def _waiting(self, rental: Rental) -> float:
        rental, pod = self._read(rental)
        if pod is None:
            return 0.0 if rental.settled else 5.0
        if pod.status in (ERROR, EXITED):
            return self._to(rental, Phase.ENDING, reason=f"the pod's status is {pod.status}: {self._system_line(pod)}")
        if self._now() - (rental.posted or 0.0) > float(rental.detail.get("ready_s", READY_S)):
            return self._to(rental, Phase.ENDING, reason=NEVER_READY)
        if pod.ssh is None:
            line = self._system_line(pod)
            return self._wait(rental, 5.0, f"{STAGES_OF_A_POD.get(pod.status, pod.status)}{': ' if line else ''}{line}")
        self._bench.reach(rental)
        return self._to(rental, Phase.PREPARING)

    def _preparing(self, rental: Rental) -> float:
        self._bench.prepare(rental)
        return self._to(rental, Phase.STARTING)

    def _starting(self, rental: Rental) -> float:
        self._bench.launch(rental)
        return self._to(rental, Phase.WORKING)

    def _working(self, rental: Rental) -> float:
        if self._bench.running(rental):
            return self._wait(rental, LOOK_S, "")
        failure = self._bench.failure(rental)
        if failure and rental.hold_s > 0:
            return self._to(rental, Phase.HELD, reason=failure, proof="")
        return self._to(rental, Phase.COPYING, reason=failure or "the run has ended")

    def _held(self, rental: Rental) -> float:
        """The run failed: its machine is kept for a while, so that somebody can look or resume, and is made safe."""
        left = rental.hold_left(self._now())
        over = self._why_end(rental) or ("" if left > 0 else f"nobody resumed it in {rental.hold_s / 60:g} min")
        if over:
            return self._to(rental, Phase.COPYING, reason=f"{rental.reason}; {over}")
        if self._bench.running(rental):  # somebody on the machine itself started it
            return self._to(rental, Phase.WORKING, reason="")
        if not rental.proof:
            self._bench.back_up(rental)
            losses = self._bench.unproven(rental)
            proof = f"only there: {'; '.join(losses)[:250]}" if losses else SAFE
            self._book.change(rental.id, self._now(), expect=(Phase.HELD,), proof=proof)
            return 0.0
        return self._wait(rental, min(LOOK_S, left), "")

    # the way out

    def _saving(self, rental: Rental) -> float:
        waited = self._now() - rental.since
        if waited < min(STOP_S, max(rental.deadline - self._provider.clock() + waited, 0.0) / 2):
            self._bench.stop(rental)
            if self._bench.running(rental):
                return self._wait(rental, 3.0, "the step is finished and saved first")
        return self._to(rental, Phase.COPYING)

    def _copying(self, rental: Rental) -> float:
        self._bench.back_up(rental)
        return self._to(rental, Phase.PROVING)

    def _proving(self, rental: Rental) -> float:
        losses = self._bench.unproven(rental)
        if losses:
            return self._to(rental, Phase.KEPT, note="exists only there: " + "; ".join(losses)[:250])
        return self._to(rental, Phase.ENDING, note="the newest checkpoint of each stage was read back from its copy")

    def _kept(self, rental: Rental) -> float:
        """Money goes on, because losing the run costs more; copying is tried again until the pod ends itself."""
        if self._now() - rental.since < KEPT_S:
            return self._wait(rental, KEPT_S / 2)
        return self._to(rental, Phase.COPYING)

    def _ending(self, rental: Rental) -> float:
        with suppress(NoSuchPod):  # what counts is what it says below
            self._provider.terminate(rental.pod)
        was_listed = rental.seen is not None or self._now() - (rental.posted or 0.0) >= LAG_S
        if was_listed and self._provider.is_gone(rental.pod):
            return self._gone(rental, "")
        pod = self._provider.get(rental.pod)
        if pod is not None and pod.status == TERMINATED:
            return self._gone(rental, "")
        return self._wait(rental, 5.0, "asked to end; waiting for the provider to confirm it")

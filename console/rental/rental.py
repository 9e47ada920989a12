"""One rented machine as the ledger knows it: how far its life is, what it may cost, what it has cost.

    asked -> creating -> waiting -> preparing -> starting -> working -> saving -> copying -> proving -> ending -> gone
                |                                   ^           |                 ^  ^          |
                `-> never (nothing was created)     `-- held <--'  (the run       |  `-- kept <-'  (what is there
                                                         `---------  failed) -----'                 is not safe)

Pure: arithmetic and words. Who carries a life from phase to phase is `console.rental.steps`, who stores it
`console.rental.book`. Money is computed from what the provider confirmed, never from a plan.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

AMBER, RED = 0.80, 0.95  # shares of the budget at which the meter changes colour
RESERVE_SHARE, RESERVE_MOST_S, RESERVE_LEAST_S = 0.15, 1800.0, 60.0


class Phase(str, Enum):
    """How far a rental is; the order of its life."""

    ASKED = "asked"
    CREATING = "creating"
    WAITING = "waiting"
    PREPARING = "preparing"
    STARTING = "starting"
    WORKING = "working"
    HELD = "held"
    SAVING = "saving"
    COPYING = "copying"
    PROVING = "proving"
    KEPT = "kept"
    ENDING = "ending"
    GONE = "gone"
    NEVER = "never"

    def __str__(self) -> str:
        return self.value


SETTLED = frozenset({Phase.GONE, Phase.NEVER})
EMPTY = frozenset({Phase.WAITING, Phase.PREPARING})  # a pod is there and nothing of value can be on it
AT_WORK = frozenset({Phase.STARTING, Phase.WORKING})
RESUMABLE = frozenset({Phase.WORKING, Phase.HELD, Phase.KEPT})  # a run that has ended can be launched again there
CLOCKS_AGREE_S = 120.0  # a smaller difference between our clock and the provider's moves no timer


@dataclass(frozen=True)
class Rental:
    """One row. Times are wall time in seconds; `deadline` is when the pod shall end itself, whatever happens here, and
    `armed` what its own timer is known to say: where both differ, the timer is moved as soon as the pod can be reached.

    `started` and `ended` are the provider's word; `posted` is when the create was sent. `seen` and `seen_elapsed` are
    the last reading of how long the provider says the pod exists, so that no difference of clocks becomes money.
    `reason` says why the end was decided, `note` what is being waited for, both for people.
    """

    id: str
    run: str
    provider: str
    phase: Phase
    budget_usd: float
    budget_hours: float
    created: float
    name: str = ""
    pod: str = ""
    usd_per_hour: float = 0.0
    deadline: float = 0.0
    posted: float | None = None
    started: float | None = None
    ended: float | None = None
    seen: float | None = None
    seen_elapsed: float | None = None
    billed_usd: float | None = None
    address: str = ""
    reason: str = ""
    note: str = ""
    since: float = 0.0  # when this phase began
    tries: int = 0      # failures in a row within this phase
    next_try: float = 0.0
    end_asked: str = ""  # "" | "safely" | "now": a person wants it to end
    armed: float = 0.0
    attempt: int = 1     # of the run, that is to be at work there
    hold_s: float = 0.0  # how long the machine of a failed run is kept, so that somebody can look or resume
    proof: str = ""      # of a held machine: what is safe elsewhere, '' while that is being found out
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        return self.phase in SETTLED

    @property
    def bills(self) -> bool:
        """Whether a pod may be costing money now."""
        return self.phase not in SETTLED and self.phase is not Phase.ASKED

    def hours(self, now: float) -> float:
        """Hours that are paid for, as far as is known."""
        if self.seen is not None and self.seen_elapsed is not None:
            until = self.ended if self.ended is not None else now
            return max(self.seen_elapsed + max(until - self.seen, 0.0), 0.0) / 3600
        begin = self.posted if self.posted is not None and self.pod else None
        return 0.0 if begin is None else max((self.ended or now) - begin, 0.0) / 3600

    def spent(self, now: float) -> float:
        """USD so far: what was billed where that is known, else hours times the agreed rate."""
        return self.billed_usd if self.billed_usd is not None else self.hours(now) * self.usd_per_hour

    def share(self, now: float) -> float:
        """How much of the budget is used: of its dollars or of its hours, whichever is further."""
        return max(self.spent(now) / self.budget_usd if self.budget_usd else 0.0,
                   self.hours(now) / self.budget_hours if self.budget_hours else 0.0)

    @property
    def limit_hours(self) -> float:
        """Hours after which one of both budgets is used up."""
        by_money = self.budget_usd / self.usd_per_hour if self.usd_per_hour > 0 else self.budget_hours
        return min(self.budget_hours, by_money)

    def guard_in(self, now: float) -> float:
        """Seconds until the guard saves, copies, proves and ends the pod; 0 when it is time."""
        by_budget = (self.limit_hours - self.hours(now)) * 3600 - reserve_s(self.limit_hours)
        return max(by_budget, 0.0)

    def hold_left(self, now: float) -> float:
        """Seconds that a held machine is kept yet, never longer than the budget lasts; 0 for one that is not held."""
        if self.phase is not Phase.HELD:
            return 0.0
        return max(min(self.since + self.hold_s - now, self.hold_s, self.guard_in(now)), 0.0)

    def deadline_by_budget(self, now: float) -> float:
        """When the pod has to be gone: counted from the provider's own start where that is known, by its clock."""
        begun = self.started if self.started is not None else self.posted
        return (now if begun is None else begun) + self.limit_hours * 3600

    @property
    def timer_pending(self) -> bool:
        """Whether the timer inside the pod is still to be moved."""
        return bool(self.name) and not self.settled and abs(self.deadline - self.armed) >= 1

    @property
    def usd_per_minute(self) -> float:
        return self.usd_per_hour / 60


def reserve_s(hours: float) -> float:
    """Seconds at the end of a budget that are kept for saving, copying and proving."""
    return min(max(hours * 3600 * RESERVE_SHARE, RESERVE_LEAST_S), RESERVE_MOST_S, hours * 3600 / 2)


def level(share: float) -> str:
    """The colour of a meter: '' | amber | red."""
    return "red" if share >= RED else "amber" if share >= AMBER else ""


WORDS = {
    Phase.ASKED: "looking for a free machine", Phase.CREATING: "asked the provider for the pod",
    Phase.WAITING: "waiting until the pod answers", Phase.PREPARING: "preparing the pod",
    Phase.STARTING: "starting the run", Phase.WORKING: "the run is at work",
    Phase.HELD: "THE RUN FAILED; its machine is kept", Phase.SAVING: "saving a checkpoint",
    Phase.COPYING: "copying checkpoints", Phase.PROVING: "proving the copies", Phase.KEPT: "NOT SAFE TO END",
    Phase.ENDING: "ending the pod", Phase.GONE: "gone; nothing bills", Phase.NEVER: "nothing was rented",
}


def sentence(rental: Rental, now: float) -> str:
    """What it does now, with reason and money, in one line."""
    parts = [WORDS[rental.phase]]
    if rental.phase is Phase.HELD:
        parts += [rental.reason, hold_sentence(rental, now)]
    if rental.note:
        parts.append(rental.note)
    if rental.reason and rental.phase in (Phase.ENDING, Phase.GONE, Phase.NEVER, Phase.SAVING, Phase.COPYING):
        parts.append(rental.reason)
    if rental.phase is not Phase.NEVER and rental.pod:
        parts.append(f"${rental.spent(now):.2f} of ${rental.budget_usd:.2f}")
    return " · ".join(parts)


def hold_sentence(rental: Rental, now: float) -> str:
    """How long a held machine is kept, at what price, and what is safe meanwhile."""
    left, target = rental.hold_left(now), rental.detail.get("target", rental.id)
    until = time.strftime("%H:%M", time.localtime(now + left))
    return (f"held for {left / 60:.0f} min more, until {until}, at ${rental.usd_per_minute:.2f} a minute; "
            f"{rental.proof or 'its checkpoints are being copied'}; "
            f"llmconsole run resume {rental.run}, target shell {target}, or target down {target}")

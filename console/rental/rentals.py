"""Rented machines for the rest of the console: quote, rent, end, raise a limit, sweep, and keep every life going.

`console.rental.minding` drives what is alive while a writing console is open; verbs without a screen drive a rental
themselves. What is decided here is written down, and done by whoever drives it. Knows no screen.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from console.errors import Conflict, ConsoleError, NotFound, Refused, UsageProblem
from console.machines.stage_secrets import references
from console.rental.book import RentalBook
from console.rental.minding import Minder
from console.rental.money import Money, money
from console.rental.offers import detail_of
from console.rental.quote import Quote, make_quote
from console.rental.rental import RESERVE_MOST_S, RESUMABLE, WORDS, Phase, Rental, sentence
from console.rental.steps import Renter
from console.rental.sweep import Sweep, sweep
from console.settings import RentSettings, load
from engine.rundir import RunDir
from remote.errors import RemoteError
from remote.provider import Account

if TYPE_CHECKING:
    from console.operator import Operator
    from console.rental.bench import PodBench
    from console.workspace import Workspace
    from remote.provider import Offer, PodSpec, Provider

RENTAL_LOG = "00-rent"  # named like a stage's log, so that it is read where those are
BILL_AFTER_S = 900.0  # the provider's own records lag


class Rentals:
    """`make` opens the provider; tests and the demo give their own."""

    def __init__(self, workspace: Workspace, operator: Operator,
                 make: Callable[[Workspace], Provider] | None = None) -> None:
        self._workspace, self._operator, self._make = workspace, operator, make or open_provider
        self.book = RentalBook(workspace.ledger_reader, workspace.ledger_writer, workspace.guard)
        self._provider: Provider | None = None
        self._bench: PodBench | None = None
        self._guard = threading.Lock()
        self._minder = Minder(self)
        self.swept: Sweep | None = None

    # looking

    def provider(self) -> Provider:
        """The provider's door, opened on first use. Raises MissingCredential."""
        with self._guard:
            if self._provider is None:
                self._provider = self._make(self._workspace)
            return self._provider

    @property
    def read_only(self) -> bool:
        return self._workspace.read_only

    @property
    def settings(self) -> RentSettings:
        return load(self._workspace.home.config).rent

    def quote(self, recipe: str, overrides: Mapping[str, Any] | None = None, run_id: str | None = None, *,
              budget_usd: float = 0.0, budget_hours: float = 0.0, gpus: str = "",
              settings: RentSettings | None = None) -> Quote:
        """What renting for this recipe would mean. Raises ConfigError, ConsoleError and ProviderError."""
        taken = [run.id for run in self._workspace.queries.runs()] + [rental.run for rental in self.book.all()]
        return make_quote(self.provider(), recipe, overrides or {}, run_id, [self._workspace.home.recipes],
                          settings or self.settings, budget_usd=budget_usd, budget_hours=budget_hours, gpus=gpus,
                          taken=[] if run_id else taken)

    def money(self, now: float | None = None) -> Money:
        """The meter, from the ledger alone."""
        return money(self.book.all(), time.time() if now is None else now)

    def spec(self, quote: Quote, offer: Offer) -> PodSpec:
        """The pod as it would be asked for; its name and key are examples until `rent`."""
        from console.rental.spec import compose

        return compose(self._row(quote), offer, public_key="ssh-ed25519 (made when renting)", now=time.time())

    # deciding

    def rent(self, quote: Quote) -> Rental:
        """Write the decision down; whoever drives it does the rest. The same run id is the same rental."""
        self._operator.require_writer()
        known = self.book.of_run(quote.plan.run)
        if known is not None:
            if known.detail["description"].get("stages") != quote.plan.description.get("stages"):
                raise Conflict(f"a run called {quote.plan.run} was already started with other settings",
                               "choose another --id")
            return known
        if quote.plan.problems:
            raise Refused("not rented: " + "; ".join(quote.plan.problems))
        from console.rental.bench import safekeeper_for

        row = self._row(quote)
        safekeeper_for(self._workspace, row)  # a place that cannot be used is said before anything is paid for
        rental = self.book.open(row)
        self._operator.announce(rental.run, str(rental.detail["target"]), quote.plan.path,
                                dict(rental.detail["description"]))
        self._minder.wake.set()
        return rental

    def _row(self, quote: Quote) -> Rental:
        settings = quote.settings
        rental = f"{quote.plan.run}-{secrets.token_hex(3)}"
        detail = detail_of(quote.want, quote.offers, wait=True)
        target = f"pod-{rental[-6:]}"
        detail |= {"description": {**quote.plan.description, "target": target}, "target": target,
                   "image": settings.image, "disk_gb": quote.disk_gb, "ready_s": settings.ready_minutes * 60,
                   "secrets": references(settings.secrets), "backup": settings.backup, "minutes": quote.plan.minutes}
        return Rental(rental, quote.plan.run, quote.provider, Phase.ASKED, quote.budget_usd, quote.budget_hours,
                      time.time(), usd_per_hour=quote.usd_per_hour, hold_s=settings.hold_minutes * 60, detail=detail)

    def end(self, rental_id: str, *, now: bool = False) -> Rental:
        """Decide the end: save, copy, prove first; `now` for a person who typed the name and loses the rest."""
        self._operator.require_writer()
        rental = self.book.get(rental_id)
        if not rental.settled:
            rental = self.book.change(rental_id, time.time(), end_asked="now" if now else "safely", next_try=0.0)
            if now and self._bench is not None:
                self._bench.interrupt(rental_id)
        self._minder.wake.set()
        return rental

    def resume(self, rental: Rental, attempt: int) -> Rental:
        """Decide that a run which has ended goes on, as this attempt, on the machine where it was."""
        self._operator.require_writer()
        at, kept = time.time(), rental.detail.get("backup") or self._workspace.home.backups
        if rental.settled:
            raise Conflict(f"the machine of {rental.run} was given back, so nothing can go on there",
                           f"what was saved of it lies in {kept}; start a new run")
        if rental.guard_in(at) <= 0:
            raise Refused(f"the budget of {rental.run} is nearly used up, so nothing is started there again",
                          f"llmconsole cost limit {rental.run} --budget USD --hours H raises it")
        after = rental if rental.end_asked else self.book.change(
            rental.id, at, expect=RESUMABLE, phase=Phase.STARTING, attempt=attempt, reason="", proof="")
        if after.phase is not Phase.STARTING:
            raise Conflict(f"it is too late to go on with {rental.run} there: {WORDS[after.phase]}",
                           f"what is saved of it lies in {kept}; start a new run")
        if self._bench is not None:
            self._bench.interrupt(rental.id)  # it may be copying, which can wait
        self._minder.wake.set()
        return after

    def set_limit(self, rental_id: str, usd: float | None, hours: float | None, *, dry_run: bool = False) -> Rental:
        """Change what a living rental may cost. The pod's own timer is moved too, as soon as the pod can be reached;
        until then the rental's `timer_pending` says so."""
        rental = self.book.get(rental_id)
        if rental.settled:
            raise Conflict(f"the machine of {rental.run} is {rental.phase}; there is nothing to limit any more")
        usd = rental.budget_usd if usd is None else usd
        hours = rental.budget_hours if hours is None else hours
        if not (0 < usd < math.inf and 0 < hours < math.inf):
            raise UsageProblem("a limit is more than 0 dollars and more than 0 hours, so nothing was changed",
                               f"llmconsole target down {rental.detail.get('target')} ends the machine")
        at = time.time()
        changes: dict[str, Any] = {"budget_usd": usd, "budget_hours": hours,
                                   "deadline": _new_deadline(rental, usd, hours, at) if rental.name else 0.0}
        if dry_run:
            return replace(rental, **changes)
        self._operator.require_writer()
        renter = self._renter() if rental.address else None
        after = self.book.change(rental_id, at, **changes, note=f"the limit is ${usd:.2f} and {hours:g} h now")
        self._minder.wake.set()
        return renter.arm(after) if renter else after

    def losses(self, rental: Rental) -> list[str]:
        """What ending the machine now would lose, a sentence each. Raises RemoteError when nobody can say."""
        self._renter()
        return self._bench.unproven(rental) if self._bench and rental.address else []

    def find(self, name: str) -> Rental:
        """A living rental by run, rental id, pod id or target name. Raises NotFound."""
        for rental in self.book.unsettled():
            if name in (rental.id, rental.run, rental.pod, rental.detail.get("target")):
                return rental
        raise NotFound(f"no rented machine is called {name!r}", "llmconsole target list shows those that there are")

    # keeping it going

    def sweep(self) -> Sweep:
        """Compare the account with the ledger now. Raises RemoteError and MissingCredential."""
        found = sweep(self.book, self.provider())
        for stray in found.strays:
            if stray.overdue:
                self.provider().terminate(stray.pod.id)
        self.swept = found
        self._minder.wake.set()
        return found

    def balance_trouble(self) -> str:
        """That the account's balance ends before what is rented does, '' when it lasts or is not known."""
        alive, at = [rental for rental in self.book.unsettled() if rental.pod], time.time()
        account = self.provider().account() if alive else Account()
        lasts, needed = account.hours_left(), max((rental.guard_in(at) / 3600 for rental in alive), default=0.0)
        if lasts is None or lasts >= needed:
            return ""
        rate = f"${account.spend_per_hour:.2f}/h"
        return (f"the balance of ${account.balance_usd:.2f} lasts {lasts * 60:.0f} min at {rate}, "
                "then the provider ends every pod, saved or not: add credit, or give the machine back")

    def settle_bills(self) -> None:
        """Put the provider's own record in place of our sum, once it has had time to be complete."""
        at = time.time()
        for rental in self.book.all(50):
            due = rental.phase is Phase.GONE and rental.billed_usd is None and rental.pod and rental.ended
            if due and BILL_AFTER_S < at - float(rental.ended or at) < 40 * 3600:
                rows = [row for row in self.provider().billing(rental.pod) if row.pod_id in ("", rental.pod)]
                if rows:
                    self.book.change(rental.id, at, billed_usd=round(sum(row.usd for row in rows), 2))

    def advance(self, rental_id: str) -> float:
        """One step of one life, in the caller's thread; seconds until the next."""
        return self._renter().advance(rental_id)

    def drive(self, rental_id: str, until: Callable[[Rental], bool], tell: Callable[[Rental], None],
              stop: threading.Event | None = None) -> Rental:
        """Keep one life going in the caller's thread until `until` holds; `tell` hears of every change."""
        stop, told = stop or threading.Event(), None
        while True:
            rental = self.book.get(rental_id)
            if (rental.phase, rental.note) != told:
                told = (rental.phase, rental.note)
                self._log(rental)
                tell(rental)
            if rental.settled or until(rental) or stop.is_set():
                return rental
            pause = self.advance(rental_id)
            if pause > 0 and self.book.get(rental_id).phase is rental.phase:
                stop.wait(min(pause, 5.0))

    def _log(self, rental: Rental) -> None:
        """One line in the run's copied folder: what the machine behind it did, beside what its stages printed."""
        now, path = time.time(), RunDir(self._workspace.home.mirror / rental.run).stage_log(RENTAL_LOG)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as f:
            f.write(f"{time.strftime('%H:%M:%S', time.localtime(now))}  {sentence(rental, now)}\n")

    def nudge(self) -> list[str]:
        """One step for lives whose next step is a question to the provider; sentences about what still bills."""
        told = []
        for rental in self.book.unsettled():
            try:
                if rental.phase in (Phase.CREATING, Phase.ENDING) and not self._workspace.read_only:
                    self.advance(rental.id)
                    rental = self.book.get(rental.id)
            except (ConsoleError, RemoteError) as error:
                told.append(f"{rental.run}: {error}")
            if rental.bills:
                told.append(f"{rental.run} rents {rental.detail.get('target')}: {sentence(rental, time.time())}")
        return told

    def keep_going(self) -> None:
        """Start the threads that drive what is alive, and the sweep; called by a console that stays open."""
        self._minder.start()

    @property
    def trouble(self) -> str:
        """Why rented machines cannot be looked after, '' when they are."""
        return self._minder.trouble

    def close(self) -> None:
        """Stop driving, whatever is going on; the next start goes on."""
        self._minder.stop()
        if self._bench is not None:
            self._bench.close()
        if self._provider is not None:
            self._provider.close()

    def _renter(self) -> Renter:
        from console.rental.bench import PodBench
        from console.rental.spec import compose_with_key

        provider = self.provider()
        with self._guard:
            if self._bench is None:
                self._bench = PodBench(self._workspace, self._operator, provider, self._say)
        return Renter(self.book, provider, self._bench, compose_with_key(self._workspace.home, provider.clock))

    def _say(self, rental: Rental, text: str) -> None:
        self.book.change(rental.id, time.time(), note=text[:300])


def _new_deadline(rental: Rental, usd: float, hours: float, at: float) -> float:
    """When the pod ends itself under another limit. A limit that is used up already leaves time to save and copy."""
    after = replace(rental, budget_usd=usd, budget_hours=hours)
    least = min(rental.hours(at) + RESERVE_MOST_S / 3600, rental.limit_hours)
    return after.deadline_by_budget(at) + max(least - after.limit_hours, 0.0) * 3600


def open_provider(workspace: Workspace) -> Provider:
    """RunPod with the person's key; its library is imported here because it costs start time."""
    import os

    from console.credentials import require
    from console.rental.spec import API_VARIABLE
    from remote.runpod.client import GRAPHQL, RunPod
    from remote.runpod.http import BASE

    key, other = require("RUNPOD_API_KEY", workspace.home.path), os.environ.get(API_VARIABLE)
    return RunPod(key.secret, base=other or BASE, graphql=other.replace("/v2", "/graphql") if other else GRAPHQL)

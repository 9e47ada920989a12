"""Renting from the command line: what it would cost, the exact request, then one machine's life told line by line."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from console.cli.output import emit_json, line, note
from console.cli.wait import WaitedTooLong
from console.errors import ConsoleError, Refused, UsageProblem
from console.exit_codes import Exit
from console.rental.rental import Phase, sentence

if TYPE_CHECKING:
    from console.rental.quote import Quote
    from console.rental.rental import Rental
    from console.workspace import Workspace

_WORKING = frozenset({Phase.WORKING, Phase.HELD, Phase.SAVING, Phase.COPYING, Phase.PROVING, Phase.KEPT, Phase.ENDING})


class _NoCapacity(ConsoleError):
    exit = Exit.NO_CAPACITY


def rent_and_start(workspace: Workspace, recipe: str, overrides: dict[str, str], run_id: str | None, *,
                   budget: float | None, hours: float | None, gpus: str, wait_for_stock: bool, hold: float | None,
                   yes: bool, dry_run: bool, wait: bool, timeout: float | None, as_json: bool) -> int:
    """`run start --target runpod`: quote, ask, rent, tell until the run is at work; with `wait`, until it is over."""
    rentals = workspace.operator.rentals
    if budget is None or hours is None:
        raise UsageProblem("renting needs a limit in dollars and in hours", "--budget 120 --hours 5")
    settings = rentals.settings if hold is None else replace(rentals.settings, hold_minutes=max(hold, 0.0))
    quote = rentals.quote(recipe, overrides, run_id, budget_usd=budget, budget_hours=hours, gpus=gpus,
                          settings=settings)
    print_quote(quote)
    if dry_run:
        _print_request(workspace, quote, as_json)
        return Exit.OK if quote.plan.ok else Exit.REFUSED
    if quote.plan.problems:
        raise Refused("not rented: " + "; ".join(quote.plan.problems))
    if quote.best is None and not wait_for_stock:
        raise _NoCapacity(f"no {quote.want.count} × {quote.want.gpus[0]} is free now; nothing was rented",
                          "--wait-for-stock asks again each minute, another --gpus may be free")
    _ask(quote, yes)
    rental = rentals.rent(quote)
    note(f"rented for {rental.run}; the pod ends itself at its deadline even if this machine is off")
    if wait:
        drive_to_the_end(workspace, rental, timeout)
        rental = rentals.book.get(rental.id)
    else:
        rental = rentals.drive(rental.id, lambda now: now.phase in _WORKING, tell)
    return _report(workspace, rental, wait, as_json)


def print_quote(quote: Quote) -> None:
    """Offers, price, time, budget."""
    rows = [f"{o.count} × {o.gpu_name}  {o.cloud.lower()}  {o.data_center or 'any'}  stock {o.stock.lower()}  "
            f"${o.usd_per_hour:.2f}/h  {'; '.join(o.warnings)}" for o in quote.offers]
    for row in rows:
        note(row)
    hours = f"about {quote.hours:.1f} h" if quote.measured else "a time that nobody has measured"
    note(f"{quote.plan.title} on {quote.plan.target_title}: {hours}, about ${quote.usd:.2f}; never more than "
         f"${quote.budget_usd:.2f} or {quote.budget_hours:g} h, which ends it after {quote.limit_hours:.1f} h")
    if quote.hold_usd:
        note(f"a run that fails keeps its machine {quote.settings.hold_minutes:g} min more, for ${quote.hold_usd:.2f} "
             "at most, so that you can look or resume it")
    balance = quote.account.balance_usd
    note(f"balance ${balance:.2f}" if balance is not None else f"balance unknown: {quote.account.note}")
    for warning in quote.plan.warnings:
        note(f"note: {warning}")
    for problem in quote.plan.problems:
        note(f"not possible: {problem}")


def _print_request(workspace: Workspace, quote: Quote, as_json: bool) -> None:
    """Exactly what would be sent and run; the key and the name are made when renting."""
    body: dict[str, Any] = {}
    if quote.offers:
        rentals = workspace.operator.rentals
        body = rentals.provider().request_body(rentals.spec(quote, quote.best or quote.offers[0]))
    argv = ["python", "-m", "engine", "run", "--run-dir", quote.plan.path]
    if as_json:
        emit_json({"request": body, "argv": argv, "quote": quote})
        return
    line("POST /pods")
    from console.jsontext import dump

    line(dump(body, indent=2))
    line("then on the pod")
    line("  " + shlex.join(argv))


def _ask(quote: Quote, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem("nobody can be asked here, so nothing was rented", "add --yes")
    if not click.confirm(f"Rent for ${quote.usd_per_hour:.2f} an hour?", default=False, err=True):
        raise Refused("not rented, as you said")


def tell(rental: Rental) -> None:
    """One line for each thing that changes."""
    now = time.time()
    note(f"{time.strftime('%H:%M:%S', time.localtime(now))}  {sentence(rental, now)}")


def _report(workspace: Workspace, rental: Rental, wait: bool, as_json: bool) -> int:
    now = time.time()
    if as_json:
        emit_json({"run": rental.run, "rental": rental.id, "phase": rental.phase, "reason": rental.reason,
                   "target": rental.detail.get("target"), "spent_usd": round(rental.spent(now), 2)})
    else:
        line(rental.run)
    if rental.phase is Phase.NEVER:
        if rental.reason.startswith("no capacity"):
            raise _NoCapacity(f"nothing was rented: {rental.reason}")
        raise ConsoleError(f"nothing was rented: {rental.reason}")
    if not wait:
        note(f"{rental.run} is at work and bills ${rental.usd_per_hour:.2f}/h")
        note(f"keep `llmconsole` open, or come back with `llmconsole run wait {rental.run}`: that saves, copies, "
             "proves and ends the pod; if nobody does, its own deadline ends it")
        return Exit.OK
    workspace.ingest()
    state = workspace.operator.state(rental.run)
    note(f"{rental.run}: {state.text}; the pod is {rental.phase}, ${rental.spent(now):.2f} in all")
    return Exit.OK if str(state.word) == "finished" else Exit.WORK_FAILED


def follow_end(workspace: Workspace, rental: Rental, as_json: bool) -> int:
    """Drive a rental whose end was decided until the provider confirms it."""
    rental = workspace.operator.rentals.drive(rental.id, lambda now: now.phase is Phase.KEPT, tell)
    now = time.time()
    if as_json:
        emit_json({"run": rental.run, "phase": rental.phase, "reason": rental.reason, "note": rental.note,
                   "spent_usd": round(rental.spent(now), 2)})
    else:
        line(str(rental.phase))
    if rental.phase is Phase.KEPT:
        raise Refused(f"the pod is kept: {rental.note}",
                      "repair the copy's place and repeat, or lose it with --type-name")
    note(f"{rental.run}: nothing bills any more; ${rental.spent(now):.2f} in all")
    return Exit.OK


def drive_resumed(workspace: Workspace, rental: Rental, wait: bool) -> None:
    """Launch the attempt that was decided; with `wait` keep the life going until it is settled."""
    workspace.operator.rentals.drive(rental.id, lambda now: not wait and now.phase in _WORKING, tell)
    workspace.ingest()


def drive_to_the_end(workspace: Workspace, rental: Rental, timeout: float | None) -> None:
    """Keep a rented machine's life going until it is settled. Raises WaitedTooLong after `timeout` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    now = workspace.operator.rentals.drive(rental.id, lambda _: until is not None and time.monotonic() > until, tell)
    workspace.ingest()
    if not now.settled:
        raise WaitedTooLong(f"{rental.run} is not over after {timeout:g} s; its machine goes on and bills "
                            f"${now.usd_per_hour:.2f}/h", f"llmconsole run wait {rental.run} waits on")

"""`cost`: what rented machines cost and have cost, and the limits that end them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from console.cli.amounts import Amount
from console.cli.output import emit_json, json_option, line, note, table, when
from console.cli.workspace import fresh_workspace
from console.errors import UsageProblem
from console.exit_codes import Exit
from console.rental.rental import level

if TYPE_CHECKING:
    from console.rental.rental import Rental


@click.group()
def cost() -> None:
    """What rented machines cost, and their limits."""


@cost.command("show")
@click.option("--check", is_flag=True, help="Exit 10 when something bills that the ledger does not expect.")
@click.option("--offline", is_flag=True, help="From the ledger alone, without asking the provider.")
@json_option
@click.pass_context
def cost_show(ctx: click.Context, check: bool, offline: bool, as_json: bool) -> int:
    """Every rental with its hours and dollars, the totals, and what the account says bills now."""
    with fresh_workspace(ctx) as workspace:
        rentals = workspace.operator.rentals
        account = "not asked" if offline else _swept(rentals)
        everyone, now = rentals.book.all(), time.time()
        strays = list(rentals.swept.strays) if rentals.swept else []
    rows = [facts(rental, now) for rental in everyone]
    total, running = sum(row["usd"] for row in rows), [row for row in rows if row["bills"]]
    if as_json:
        emit_json({"total_usd": round(total, 2), "bills_now": len(running), "account": account, "rentals": rows,
                   "strays": [{"pod": s.pod.id, "name": s.pod.name, "overdue": s.overdue} for s in strays],
                   "by_day": _by_day(everyone, now)})
    else:
        _print(rows, total, running, account)
        for stray in strays:
            line(f"! {stray.pod.name} ({stray.pod.id}) bills ${stray.pod.usd_per_hour:.2f}/h and no rental here asked "
                 f"for it; its name says that it ends at {when(stray.deadline)}")
    return Exit.UNHEALTHY if check and (strays or account.startswith("!")) else Exit.OK


def _swept(rentals: Any) -> str:
    """What the comparison with the account came to, in words; a failed one is never called clean."""
    from console.credentials import MissingCredential
    from remote.errors import RemoteError

    try:
        found = rentals.sweep()
    except MissingCredential as error:
        return f"not compared: {error}" if not rentals.book.unsettled() else f"! not compared: {error}"
    except RemoteError as error:
        return f"! could not be compared with the ledger: {error}"
    known = len(rentals.book.unsettled())
    return f"compared: {known} of ours known, {len(found.strays)} unknown, {len(found.reopened)} to be ended again"


def facts(rental: Rental, now: float) -> dict[str, Any]:
    """One rental for `--json` and the table."""
    return {"rental": rental.id, "run": rental.run, "phase": rental.phase, "bills": rental.bills,
            "hours": round(rental.hours(now), 3), "usd": round(rental.spent(now), 2), "billed": rental.billed_usd,
            "usd_per_hour": rental.usd_per_hour, "budget_usd": rental.budget_usd, "budget_hours": rental.budget_hours,
            "share": round(rental.share(now), 4), "level": level(rental.share(now)), "created": rental.created,
            "ended": rental.ended, "reason": rental.reason, "note": rental.note, "deadline": rental.deadline,
            "timer_pending": rental.timer_pending, "hold_left_s": round(rental.hold_left(now)), "proof": rental.proof}


def _by_day(everyone: list[Rental], now: float) -> dict[str, float]:
    days: dict[str, float] = {}
    for rental in everyone:
        day = time.strftime("%Y-%m-%d", time.localtime(rental.created))
        days[day] = round(days.get(day, 0.0) + rental.spent(now), 2)
    return days


def _print(rows: list[dict[str, Any]], total: float, running: list[dict[str, Any]], account: str) -> None:
    if rows:
        table(("run", "phase", "begun", "hours", "USD", "USD/h", "of budget", "why"),
              [(r["run"], r["phase"], when(r["created"]), f"{r['hours']:.2f}", f"{r['usd']:.2f}",
                f"{r['usd_per_hour']:.2f}", f"${r['budget_usd']:.0f} / {r['budget_hours']:g} h",
                r["reason"] or r["note"]) for r in rows])
    per_hour = sum(row["usd_per_hour"] for row in running)
    line(f"${total:.2f} in all; " + (f"{len(running)} bills ${per_hour:.2f}/h now" if running else "nothing bills now"))
    note(f"account {account}")


@cost.command("limit")
@click.argument("name")
@click.option("--budget", type=Amount(positive=True), help="At most so many US dollars in all.")
@click.option("--hours", type=Amount(positive=True), help="At most so many hours in all.")
@click.option("--dry-run", is_flag=True, help="Say when it would end, and change nothing.")
@json_option
@click.pass_context
def cost_limit(ctx: click.Context, name: str, budget: float | None, hours: float | None, dry_run: bool,
               as_json: bool) -> int:
    """Change what a living rental may cost. NAME is its run or target.

    The pod's own timer is moved with it, as soon as the pod can be reached; until then the new one is shown as pending.
    """
    if budget is None and hours is None:
        raise UsageProblem("say what the limit is", "--budget 150, --hours 6, or both")
    with fresh_workspace(ctx, patience=0.5) as workspace:
        rental = workspace.operator.rentals.find(name)
        rental = workspace.operator.rentals.set_limit(rental.id, budget, hours, dry_run=dry_run)
    if as_json:
        emit_json({**facts(rental, time.time()), "changed": not dry_run})
    pending = f" (its own timer still says {when(rental.armed)})" if rental.timer_pending else ""
    note(f"{'it would be ' if dry_run else ''}{rental.run}: ${rental.budget_usd:.2f} and {rental.budget_hours:g} h; it "
         f"ends itself at {when(rental.deadline) if rental.deadline else 'a moment set when it is created'}{pending}")
    return Exit.OK

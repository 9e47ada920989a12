"""What a person decides about rented machines: renting, limits, a failed run's machine, ending. The app's half of
`rentals`.

Everything that asks a provider or a machine runs in the background and ends in a message.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding

from console.decisions import FAILURES
from console.errors import UsageProblem
from console.machines.choosing import Choosing
from console.messages import ActionDone, LossesFound, QuoteMade, QuoteRefused
from console.rental.rental import Phase, Rental, level
from console.text import clean_line
from remote.errors import CredentialRefused

if TYPE_CHECKING:
    from textual.message import Message

    from console.rental.quote import Quote
    from console.screens.rent_sheet import RentSheet, Wish


class Renting(Choosing):
    """A mixin of the app."""

    BINDINGS: ClassVar = [
        Binding("M", "machine", "rented machine", id="app.machine", show=False,
                tooltip="The rented machine: its money and timer; resume, shell, limit, give back"),
    ]

    _quote: Quote | None = None
    _warned: dict[str, object] | None = None

    # renting

    def action_rent(self) -> None:
        """Rent for the recipe of the settings, wherever runs go otherwise."""
        self.recipe_to_start = self.settings.run.recipe
        self.start_by_renting()

    def start_by_renting(self) -> None:
        """The sheet with offers; nothing is rented before its button."""
        from console.screens.rent_sheet import RentSheet, Wish

        wish = Wish(0.0, 0.0, self.settings.rent.gpus)
        self.push_screen(RentSheet(wish), self._rent)

    def quote_for(self, wish: Wish) -> None:
        """Make a quote in the background; the sheet in front gets it."""
        recipe = self.recipe_to_start or self.settings.run.recipe

        def ask() -> Message:
            try:
                return QuoteMade(self.workspace.operator.rentals.quote(recipe, budget_usd=wish.usd,
                                                                       budget_hours=wish.hours, gpus=wish.gpus))
            except FAILURES as error:
                return QuoteRefused(str(error), self._which_key() if isinstance(error, CredentialRefused) else
                                    getattr(error, "next", ""))

        self.in_background(ask)

    def _which_key(self) -> str:
        """Which key was refused, and how another one is kept."""
        from console.credentials import find

        held = find("RUNPOD_API_KEY", self.workspace.home.path)
        shown = f"The key ends {held.hint} and comes from {held.origin}; " if held else ""
        return f"{shown}llmconsole config set-secret RUNPOD_API_KEY keeps another."

    def rent_sheet(self) -> RentSheet | None:
        from console.screens.rent_sheet import RentSheet

        return self.screen if isinstance(self.screen, RentSheet) else None

    def on_rent_sheet_asked(self, message: RentSheet.Asked) -> None:
        self.quote_for(message.wish)

    @on(QuoteMade)
    def _quote_made(self, message: QuoteMade) -> None:
        self._quote = message.quote
        if (sheet := self.rent_sheet()) is not None:
            sheet.quoted(message.quote)

    @on(QuoteRefused)
    def _quote_refused(self, message: QuoteRefused) -> None:
        self._quote = None
        if (sheet := self.rent_sheet()) is not None:
            sheet.refused(message.text, message.next)

    def _rent(self, wish: Wish | None) -> None:
        quote = self._quote
        if wish is None or quote is None:
            return

        def rent() -> Message:
            rental = self.workspace.operator.rentals.rent(quote)
            return ActionDone(f"Renting for {rental.run}. The pod ends itself at its deadline, whatever happens here.",
                              rental.run)

        self.in_background(rent)

    # limits and ends

    @property
    def rented_here(self) -> Rental | None:
        """The machine of the run in front while it lives, else the only one there is."""
        rented = self.glance.rented if self.glance else None
        if rented is None:
            return None
        if rented.here is not None and not rented.here.settled:
            return rented.here
        return rented.alive[0] if len(rented.alive) == 1 else None

    def action_end_rental(self) -> None:
        """Say what ending the rented machine would lose, and ask."""
        rental = self.rented_here
        if rental is None:
            self.notify("No rented machine is there.", markup=False)
        else:
            self._ask_end(rental)

    def _ask_end(self, rental: Rental) -> None:
        self.in_background(lambda: LossesFound(rental, self._losses(rental)))

    def _losses(self, rental: Rental) -> tuple[str, ...]:
        try:
            return tuple(self.workspace.operator.rentals.losses(rental))
        except FAILURES as error:
            return (f"nobody can say: {error}",)

    @on(LossesFound)
    def _losses_found(self, message: LossesFound) -> None:
        from console.screens.money_sheets import terminate_sheet

        rental = message.rental
        sheet = terminate_sheet(rental, message.losses)

        def decided(answer: str | None) -> None:
            if answer == "safely":
                self._end(rental, now=False)
            elif answer == "lose" and sheet.typed == rental.detail.get("target"):
                self._end(rental, now=True)
            elif answer == "lose":
                self.notify("The name was not typed, so nothing was ended.", severity="warning", markup=False)

        self.push_screen(sheet, decided)

    def _end(self, rental: Rental, *, now: bool) -> None:
        def end() -> Message:
            self.workspace.operator.rentals.end(rental.id, now=now)
            return ActionDone("The machine is being ended; row 1 counts until the provider confirms it.")

        self.in_background(end)

    def action_limit_rental(self) -> None:
        """Show the budget guard, and take another limit."""
        if (rental := self.rented_here) is None:
            self.notify("No rented machine is there.", markup=False)
        else:
            self._ask_limit(rental, running_out=False)

    def _ask_limit(self, rental: Rental, *, running_out: bool) -> None:
        from console.screens.money_sheets import limit_sheet

        sheet = limit_sheet(rental, running_out)

        def decided(answer: str | None) -> None:
            if answer:
                self.in_background(lambda: self._set_limit(rental, sheet.typed, sheet.also[0]))

        self.push_screen(sheet, decided)

    def _set_limit(self, rental: Rental, usd: str, hours: str) -> Message:
        after = self.workspace.operator.rentals.set_limit(rental.id, _amount(usd, "dollars"), _amount(hours, "hours"))
        pending = " The pod's own timer follows as soon as it can be reached." if after.timer_pending else ""
        limits = f"${after.budget_usd:.2f} and {after.budget_hours:g} h"
        return ActionDone(f"The limit of {after.run} is {limits} now.{pending}")

    def action_machine(self) -> None:
        """Show the rented machine, and what can be done with it."""
        if (rental := self.rented_here) is None:
            self.notify("No rented machine is there.", markup=False)
        else:
            self._show_machine(rental)

    def _show_machine(self, rental: Rental) -> None:
        from console.screens.money_sheets import machine_sheet

        def decided(answer: str | None) -> None:
            if answer == "resume":
                self._resume(rental.run)
            elif answer == "shell":
                self.open_shell(str(rental.detail.get("target")))
            elif answer == "limit":
                self._ask_limit(rental, running_out=False)
            elif answer == "end":
                self._ask_end(rental)

        self.push_screen(machine_sheet(rental), decided)

    def watch_money(self) -> None:
        """Once per rental: amber is told, red opens the guard's sheet, a machine that is held opens its own."""
        warned = self._warned = {} if self._warned is None else self._warned
        for rental in self.glance.rented.alive if self.glance else ():
            if rental.phase is Phase.HELD and warned.get(f"held {rental.id}") != rental.since:
                warned[f"held {rental.id}"] = rental.since
                self._show_machine(rental)
            now = level(rental.share(time.time()))
            if now and warned.get(rental.id) != now:
                warned[rental.id] = now
                if now == "red":
                    self._ask_limit(rental, running_out=True)
                else:
                    self.notify(f"{clean_line(rental.run, 60)} has used {rental.share(time.time()):.0%} of its budget.",
                                title="budget", severity="warning", markup=False, timeout=15)


def _amount(typed: str, what: str) -> float:
    try:
        return float(typed.removeprefix("$"))
    except ValueError:
        raise UsageProblem(f"{typed!r} is no number of {what}, so nothing was changed") from None

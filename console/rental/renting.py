"""What a person decides about machines: which one to use, renting, limits, ending. The app's half of `rentals`.

Everything that asks a provider or a machine runs in the background and ends in a message.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual import on
from textual.content import Content

from console.decisions import FAILURES, Decisions
from console.errors import Refused, UsageProblem
from console.machines.targets import LOCAL, RENTED
from console.messages import ActionDone, KeyShown, LossesFound, QuoteMade, QuoteRefused
from console.rental.rental import Rental, level
from console.screens.picker import Choice, Picker
from console.text import clean_line

if TYPE_CHECKING:
    from textual.message import Message

    from console.rental.quote import Quote
    from console.screens.rent_sheet import RentSheet, Wish


class Renting(Decisions):
    """A mixin of the app."""

    _quote: Quote | None = None
    _warned: dict[str, str] | None = None

    # which machine

    def action_choose_target(self) -> None:
        """Choose where runs go from now on."""
        self.push_screen(Picker("Where should runs go?", self._target_choices(), "none"), self._target_chosen)

    def _target_choices(self) -> list[Choice]:
        hosts = self.workspace.hosts
        chosen = hosts.targets.default or self.settings.run.target
        found = []
        for target in hosts.targets.all():
            facts = target.gpus or ("always there, costs nothing" if target.kind == LOCAL else "")
            silent = hosts.silence(target.name)
            state = f"no answer: {silent.error}" if silent else "" if target.kind == LOCAL or target.python else \
                "not prepared yet: enter prepares it"
            line = Content.assemble(("* " if target.name == chosen else "  "), (f"{target.title:<20}", "bold"),
                                    f"{clean_line(target.address, 34):<36}", (facts, "$foreground-muted"), "  ",
                                    (clean_line(state, 80), "$text-warning"))
            found.append(Choice(target.name, line, f"{target.name} {target.title} {target.address} {facts}"))
        for name in RENTED:
            line = Content.assemble(("* " if name == chosen else "  "), (f"{name:<20}", "bold"),
                                    ("rent a machine for each run; asks for a budget first", "$foreground-muted"))
            found.append(Choice(name, line, f"{name} rent pod"))
        add = Content.assemble("  ", (f"{'add a machine …':<20}", "bold"),
                               ("one that ssh reaches: user@host", "$foreground-muted"))
        return [*found, Choice("+", add, "add ssh host machine")]

    def _target_chosen(self, name: str | None) -> None:
        if name == "+":
            self.action_add_target()
        elif name is not None:
            self.in_background(lambda: self._use(name))

    def _use(self, name: str) -> Message:
        """Prepare it if it is another machine's first time, then send runs there."""
        hosts = self.workspace.hosts
        if name not in RENTED and name != LOCAL and not hosts.target(name).python:
            from console.machines.hosts import ssh_host
            from console.machines.preparing import prepare

            box = ssh_host(hosts.target(name), self.workspace.home)
            try:
                prepare(box, hosts.targets, hosts.target(name), self._tell)
            finally:
                box.close()
        hosts.targets.use(name)
        return ActionDone(f"Runs go to {hosts.target(name).title if name not in RENTED else name} now.")

    def _tell(self, text: str) -> None:
        self.call_from_thread(self.notify, clean_line(text, 200), markup=False, timeout=4)

    def action_add_target(self) -> None:
        """Look at a machine and remember it."""
        from console.screens.money_sheets import TypedSheet

        lines = [Content("A machine that ssh reaches with your keys or agent. It is only looked at, not changed."),
                 Content("Its host key is shown and pinned when you agree."), Content(""),
                 Content.styled("same as  llmconsole target add user@host", "$foreground-muted")]
        sheet = TypedSheet("Add a machine", lines, "user@host[:port]:", [("look", "Look at it")])
        self.push_screen(sheet, lambda answer: self._look_at(sheet.typed) if answer else None)

    def _look_at(self, address: str) -> None:
        from console.machines.adding import first_look

        self.in_background(lambda: KeyShown(address, first_look(self.workspace.home, address)))

    @on(KeyShown)
    def _agree(self, message: KeyShown) -> None:
        from console.screens.sheets import Sheet

        address, fingerprint = message.address, message.fingerprint
        shown = f"  {fingerprint}" if fingerprint else "  the one that was pinned before"
        lines = [Content(f"{clean_line(address, 100)} shows the host key"), Content(shown), Content(""),
                 Content("Compare it with what its owner tells you. From now on it must show this key.")]
        self.push_screen(Sheet("Is that the machine you mean?", lines, "It is", "Cancel"),
                         lambda yes: self.in_background(lambda: self._add(address, fingerprint)) if yes else None)

    def _add(self, address: str, fingerprint: str) -> Message:
        from console.machines.adding import add, look, target_for

        def same(shown: str) -> None:
            if shown != fingerprint:
                raise Refused(f"{address} shows another key than a moment ago, so it was not added")

        target = target_for(self.workspace.home, address)
        added = add(self.workspace.home, target, look(target, self.workspace.home, same))
        return ActionDone(f"Added {added.name}: {added.gpus or 'no GPU'}. Choose it with t; it is prepared first.")

    # renting

    def start_by_renting(self) -> None:
        """The sheet with offers; nothing is rented before its button."""
        from console.screens.rent_sheet import RentSheet, Wish

        wish = Wish(0.0, 0.0, self.settings.rent.gpus)
        self.push_screen(RentSheet(wish), self._rent)

    def quote_for(self, wish: Wish) -> None:
        """Make a quote in the background; the sheet in front gets it."""
        recipe = self.settings.run.recipe

        def ask() -> Message:
            try:
                return QuoteMade(self.workspace.operator.rentals.quote(recipe, budget_usd=wish.usd,
                                                                       budget_hours=wish.hours, gpus=wish.gpus))
            except FAILURES as error:
                return QuoteRefused(str(error), getattr(error, "next", ""))

        self.in_background(ask)

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
            return
        found = rental
        self.in_background(lambda: LossesFound(found, self._losses(found)))

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
                self.in_background(lambda: self._set_limit(rental, sheet.typed))

        self.push_screen(sheet, decided)

    def _set_limit(self, rental: Rental, typed: str) -> Message:
        try:
            usd = float(typed.removeprefix("$"))
        except ValueError:
            raise UsageProblem(f"{typed!r} is no number of dollars, so nothing was changed") from None
        after = self.workspace.operator.rentals.set_limit(rental.id, usd, rental.budget_hours)
        return ActionDone(f"The limit of {after.run} is ${after.budget_usd:.2f} now.")

    def watch_money(self) -> None:
        """Once per rental and colour: amber is told, red opens the guard's sheet; what is not safe is shouted."""
        warned = self._warned = {} if self._warned is None else self._warned
        for rental in self.glance.rented.alive if self.glance else ():
            now = level(rental.share(time.time()))
            if now and warned.get(rental.id) != now:
                warned[rental.id] = now
                if now == "red":
                    self._ask_limit(rental, running_out=True)
                else:
                    self.notify(f"{clean_line(rental.run, 60)} has used {rental.share(time.time()):.0%} of its budget.",
                                title="budget", severity="warning", markup=False, timeout=15)

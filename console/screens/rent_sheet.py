"""The sheet before money is spent: what is free at what price, what it will come to, and the limit that ends it.

It answers what the person typed, or None; the quote is made anew in the background whenever a number changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.rental.quote import Quote
from console.text import clean_line
from console.widgets.numbers import span

STOCK = {"HIGH": ("high", "$text-success"), "MEDIUM": ("medium", "$text-success"), "LOW": ("low", "$text-warning"),
         "NONE": ("none", "$text-error")}


@dataclass(frozen=True)
class Wish:
    """What the person wants to spend, on what."""

    usd: float
    hours: float
    gpus: str


class RentSheet(ModalScreen["Wish | None"]):
    """`quoted` shows a quote; `Asked` is posted when another one is needed."""

    CSS_PATH = "sheets.tcss"
    BINDINGS: ClassVar = [
        Binding("escape", "leave", "back", id="rent.back", tooltip="Rent nothing"),
        Binding("f5", "ask", "look again", id="rent.refresh", tooltip="Read stock and prices again"),
        # With priority, or digits typed fast after a tab would still go into the field before it.
        Binding("tab", "app.focus_next", "next", id="rent.next", show=False, priority=True, tooltip="The next field"),
        Binding("shift+tab", "app.focus_previous", "previous", id="rent.previous", show=False, priority=True,
                tooltip="The field before"),
    ]

    @dataclass
    class Asked(Message):
        wish: Wish

    def __init__(self, wish: Wish) -> None:
        super().__init__()
        self._wish = wish
        self._quote: Quote | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet") as sheet:
            sheet.border_title = Content("Rent a machine for this run")
            sheet.border_subtitle = Content("tab moves · F5 looks again · esc back")
            with Horizontal(classes="sheet-inputs"):
                for name, label, value in (("usd", "budget $", f"{self._wish.usd:g}" if self._wish.usd else ""),
                                           ("hours", "hours", f"{self._wish.hours:g}" if self._wish.hours else ""),
                                           ("gpus", "GPUs", self._wish.gpus)):
                    yield Static(label, classes="label", markup=False)
                    yield Input(value, id=name, compact=True)
            with VerticalScroll(classes="sheet-text", can_focus=False):
                yield Static(Content("asking the provider what is free …"), id="offers", markup=False)
            with Horizontal(classes="sheet-buttons"):
                yield Button(Content("Rent"), id="yes", classes="danger", disabled=True)
                yield Button(Content("Cancel"), id="no")

    def on_mount(self) -> None:
        self.query_one("#usd", Input).focus()
        self.action_ask()

    def on_resize(self, event: events.Resize) -> None:
        """The buttons stay in sight: the text gets what they, the inputs and the frame leave."""
        self.query_one(".sheet-text").styles.max_height = max(event.size.height * 9 // 10 - 8, 1)

    def wish(self) -> Wish:
        return Wish(_number(self.query_one("#usd", Input).value), _number(self.query_one("#hours", Input).value),
                    self.query_one("#gpus", Input).value)

    def quoted(self, quote: Quote) -> None:
        """Show what renting would mean now."""
        self._quote = quote
        self.query_one("#offers", Static).update(Content("\n").join(quote_lines(quote)))
        self.query_one("#yes", Button).disabled = not quote.plan.ok

    def refused(self, text: str, next: str) -> None:
        """No quote could be made: why, and what to do."""
        self._quote = None
        self.query_one("#offers", Static).update(Content.assemble(
            (f"✗ {clean_line(text, 400)}", "$text-error"), "\n", clean_line(next, 200), "\n",
            ("Nothing was rented.", "$foreground-muted")))
        self.query_one("#yes", Button).disabled = True

    @on(Input.Changed)
    def _changed(self) -> None:
        self.query_one("#yes", Button).disabled = True
        self.set_timer(0.6, self._ask_if_still, name="quote")

    def _ask_if_still(self) -> None:
        if self.wish() != self._wish:
            self.action_ask()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._quote is not None and self._quote.plan.ok and self.wish() == self._wish:
            self.query_one("#yes", Button).focus()
        else:
            self.action_ask()

    def action_ask(self) -> None:
        self._wish = self.wish()
        self.post_message(self.Asked(self._wish))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self._wish if event.button.id == "yes" else None)

    def action_leave(self) -> None:
        self.dismiss(None)


def quote_lines(quote: Quote) -> list[Content]:
    """The table of offers, then money and time, then what speaks against it."""
    lines = [Content.styled(f"{'  GPUs':<19} {'cloud':<9} {'place':<9} {'stock':<7} {'$/h':>7}", "$foreground-muted")]
    for offer in quote.offers[:8]:
        word, colour = STOCK.get(offer.stock, (offer.stock.lower(), "$foreground-muted"))
        what = clean_line(f"{offer.count} × {offer.gpu_name}", 17)
        lines.append(Content.assemble(
            ("▸ " if offer is quote.best else "  "), f"{what:<17} {clean_line(offer.cloud.lower(), 9):<9} ",
            f"{clean_line(offer.data_center or 'any', 9):<9} ", (f"{word:<7}", colour), f" {offer.usd_per_hour:>7.2f}",
            (f"  {clean_line('; '.join(offer.warnings), 80)}" if offer.warnings else "", "$text-warning")))
    expected = f"about {span(quote.hours * 3600)}, ${quote.usd:.2f}" if quote.measured else "not measured yet"
    limit = (f"${quote.budget_usd:.2f} or {quote.budget_hours:g} h: it ends after "
             f"{span(quote.limit_hours * 3600)} at this price")
    held = f"kept {quote.settings.hold_minutes:g} min more, for ${quote.hold_usd:.2f} at most, to look or resume"
    balance, note = quote.account.balance_usd, clean_line(quote.account.note, 80)
    lines += [
        Content(""), _fact("run", f"{quote.plan.title} · {len(quote.plan.stages)} stages"), _fact("expected", expected),
        _fact("limit", limit if quote.limit_hours else "not set yet: type both numbers above"),
        _fact("balance", f"${balance:.2f}" if balance is not None else f"unknown: {note}"),
        _fact("on failure", held if quote.hold_usd else "saved from and given back at once"),
        _fact("at its end", "save, copy checkpoints, read them back, end the pod; its own timer ends it in any case"),
    ]
    lines += [Content.styled(f"▲ {clean_line(text, 300)}", "$text-warning") for text in quote.plan.warnings]
    lines += [Content.styled(f"✗ {clean_line(text, 300)}", "$text-error") for text in quote.plan.problems]
    return [*lines, Content.assemble(("same as  ", "$foreground-muted"), clean_line(quote.plan.cli, 300))]


def _fact(label: str, value: str) -> Content:
    return Content.assemble((label.ljust(11), "$foreground-muted"), value)


def _number(text: str) -> float:
    try:
        value = float(text.strip().removeprefix("$") or 0)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e6 else 0.0

"""Sheets about a machine that bills: end it, and change its limit. What is dangerous is typed, never one key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.rental.rental import WORDS, Rental
from console.text import clean_line
from console.widgets.numbers import span


class TypedSheet(ModalScreen[str | None]):
    """Lines, one input, buttons by id. Answers the id of the button, with `typed` holding what was written."""

    CSS_PATH = "sheets.tcss"
    BINDINGS: ClassVar = [Binding("escape", "leave", "back", id="typed.back", tooltip="Change nothing")]

    def __init__(self, title: str, lines: Sequence[Content], label: str, buttons: Sequence[tuple[str, str]],
                 value: str = "") -> None:
        super().__init__()
        self._title, self._lines, self._label, self._buttons, self.typed = title, lines, label, buttons, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet") as sheet:
            sheet.border_title = Content(self._title)
            sheet.border_subtitle = Content("tab moves · enter chooses · esc back")
            with VerticalScroll(classes="sheet-text", can_focus=False):
                for line in self._lines:
                    yield Static(line, markup=False)
            if self._label:
                with Horizontal(classes="sheet-inputs"):
                    yield Static(Content(self._label), classes="label", markup=False)
                    yield Input(self.typed, compact=True, id="typed")
            with Horizontal(classes="sheet-buttons"):
                for name, text in self._buttons:
                    yield Button(Content(text), id=name, classes="danger" if name == "lose" else "")
                yield Button(Content("Cancel"), id="cancel")

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()

    def on_resize(self, event: events.Resize) -> None:
        """The buttons stay in sight."""
        self.query_one(".sheet-text").styles.max_height = max(event.size.height * 9 // 10 - 8, 1)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self.typed = event.value.strip()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(None if event.button.id == "cancel" else event.button.id)

    def action_leave(self) -> None:
        self.dismiss(None)


def terminate_sheet(rental: Rental, losses: Sequence[str]) -> TypedSheet:
    """What ending it would lose, what it saves, and the ways out."""
    now, name = time.time(), clean_line(str(rental.detail.get("target", rental.id)), 40)
    lines = [Content(f"Now: {WORDS[rental.phase]}; run {clean_line(rental.run, 60)}"), Content("")]
    if losses:
        lines.append(Content.styled("Exists only there:", "bold $text-error"))
        lines += [Content(f"  {clean_line(loss, 200)}") for loss in losses[:8]]
    else:
        told = "Nothing exists only there: every newest checkpoint was read back."
        lines.append(Content.styled(told, "$text-success"))
    saves = f"Spent here: ${rental.spent(now):.2f} · saves ${rental.usd_per_hour:.2f}/h from now"
    lines += [Content(""), Content(saves),
              Content.assemble(("same as  ", "$foreground-muted"), f"llmconsole target down {name}")]
    buttons = [("safely", "Save and copy, then end")] + ([("lose", "End at once")] if losses else [])
    label = f"to end at once type {name}:" if losses else ""
    return TypedSheet(f"End {name}? Money stops, its disk is lost", lines, label, buttons)


def limit_sheet(rental: Rental, running_out: bool) -> TypedSheet:
    """The budget guard: when it acts, what it does, and another limit."""
    now = time.time()
    at = time.strftime("%H:%M", time.localtime(now + rental.guard_in(now)))
    lines = [
        Content(f"${rental.spent(now):.2f} of ${rental.budget_usd:.2f} and {rental.hours(now):.2f} of "
                f"{rental.budget_hours:g} h are used, at ${rental.usd_per_hour:.2f}/h."),
        Content(f"The guard acts at {at}, in {span(rental.guard_in(now))}."),
        Content(""),
        Content("It will save a checkpoint, copy it, read the copy back, and end the pod."),
        Content("If the copy cannot be proven, the pod is kept until its own timer ends it, and this console shouts."),
        Content("Enforced by: the timer inside the pod, and this console."),
        Content(""),
        Content("The guard cannot be switched off."),
    ]
    title = f"Budget guard: {rental.share(now):.0%} used" if running_out else f"Limit of {clean_line(rental.run, 40)}"
    return TypedSheet(title, lines, "new budget in dollars:", [("raise", "Change the budget")])

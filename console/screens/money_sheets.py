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

from console.rental.rental import WORDS, Phase, Rental
from console.text import clean_line
from console.widgets.numbers import clock, span


class TypedSheet(ModalScreen[str | None]):
    """Lines, inputs, buttons by id. Answers the id of the button; `typed` holds what was written into the first input,
    `also` what stands in those of `more`, which are (label, value) each."""

    CSS_PATH = "sheets.tcss"
    BINDINGS: ClassVar = [Binding("escape", "leave", "back", id="typed.back", tooltip="Change nothing")]

    def __init__(self, title: str, lines: Sequence[Content], label: str, buttons: Sequence[tuple[str, str]],
                 value: str = "", *, more: Sequence[tuple[str, str]] = (), leave: str = "Cancel") -> None:
        super().__init__()
        self._title, self._lines, self._label, self._buttons, self.typed = title, lines, label, buttons, value
        self._labels, self.also, self._leave = [text for text, _ in more], [text for _, text in more], leave

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
                    for number, label in enumerate(self._labels):
                        yield Static(Content(label), classes="label", markup=False)
                        yield Input(self.also[number], compact=True, id=f"also-{number}")
            with Horizontal(classes="sheet-buttons" + (" many" if len(self._buttons) > 2 else "")):
                for name, text in self._buttons:
                    yield Button(Content(text), id=name, classes="danger" if name == "lose" else "")
                yield Button(Content(self._leave), id="cancel")

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()

    def on_resize(self, event: events.Resize) -> None:
        """The buttons stay in sight."""
        self.query_one(".sheet-text").styles.max_height = max(event.size.height * 9 // 10 - 8, 1)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        kind, _, number = str(event.input.id).partition("-")
        if kind == "typed":
            self.typed = event.value.strip()
        else:
            self.also[int(number)] = event.value.strip()

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
    """The budget guard: when it acts, what it does, and other limits."""
    now = time.time()
    at = _moment(now + rental.guard_in(now))
    lines = [
        Content(f"${rental.spent(now):.2f} of ${rental.budget_usd:.2f} and {rental.hours(now):.2f} of "
                f"{rental.budget_hours:g} h are used, at ${rental.usd_per_hour:.2f}/h."),
        Content(f"The guard acts at {at}, in {span(rental.guard_in(now))}: it saves a checkpoint, copies it, reads the "
                "copy back, and ends the pod."),
        Content("If the copy cannot be proven, the pod is kept until its own timer ends it, and this console shouts."),
        Content(""),
        Content(f"Enforced by: {timer_words(rental)}, and this console. The guard cannot be switched off."),
        Content(""),
        Content.assemble(("same as  ", "$foreground-muted"),
                         f"llmconsole cost limit {clean_line(rental.run, 60)} --budget USD --hours H"),
    ]
    title = f"Budget guard: {rental.share(now):.0%} used" if running_out else f"Limit of {clean_line(rental.run, 40)}"
    return TypedSheet(title, lines, "at most $", [("raise", "Change the limit")], f"{rental.budget_usd:g}",
                      more=[("and hours", f"{rental.budget_hours:g}")], leave="Keep the limit")


def machine_sheet(rental: Rental) -> TypedSheet:
    """The rented machine: what it does, what it costs, and what can be done with it; first of all one whose run
    failed."""
    now, name = time.time(), clean_line(str(rental.detail.get("target", rental.id)), 40)
    held, title = rental.phase is Phase.HELD, f"{name}: {WORDS[rental.phase]}"
    resumable = held or rental.phase is Phase.KEPT
    lines = [Content(f"Run {clean_line(rental.run, 60)}" + (f": {clean_line(rental.reason, 200)}" if held else ""))]
    if held:
        left, price = rental.hold_left(now), rental.usd_per_minute
        lines += [
            Content.styled(f"Kept for {clock(left)} more, until {_moment(now + left)}, at ${price:.2f} a minute: "
                           f"${left / 60 * price:.2f} at most.", "$text-warning"),
            Content(f"Checkpoints: {clean_line(rental.proof, 300) or 'being copied and read back now'}."),
            Content("Then everything is copied and read back, and the machine is given back."),
        ]
    elif rental.note:
        lines.append(Content(clean_line(rental.note, 300)))
    lines += [Content(""), Content(f"${rental.spent(now):.2f} of ${rental.budget_usd:.2f}, {rental.hours(now):.2f} of "
                                   f"{rental.budget_hours:g} h, ${rental.usd_per_hour:.2f}/h"),
              Content(f"{timer_words(rental)}; the guard acts in {span(rental.guard_in(now))}"), Content(""),
              Content.assemble(("same as  ", "$foreground-muted"), "llmconsole " + (
                  f"run resume {clean_line(rental.run, 60)} · " if resumable else "") + f"target shell {name} · target "
                  f"down {name}")]
    buttons = [("resume", "Resume")] if resumable else []
    buttons += [("shell", "Shell")] if rental.address else []
    buttons += [("limit", "Limit …"), ("end", "Give back …")]
    return TypedSheet(title, lines, "", buttons, leave="Leave it")


def timer_words(rental: Rental) -> str:
    """What the timer inside the pod says, and what it is to say."""
    if not rental.deadline:
        return "the pod's own timer (set when it is created)"
    if rental.timer_pending:
        return (f"the pod's own timer at {_moment(rental.armed)} (pending: {_moment(rental.deadline)}, once it can be "
                "reached)")
    return f"the pod's own timer at {_moment(rental.armed)}"


def _moment(at: float) -> str:
    return time.strftime("%H:%M", time.localtime(at))

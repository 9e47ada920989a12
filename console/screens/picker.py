"""Choose one of a list by typing a few letters: runs and models. Letters only ever filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option


@dataclass(frozen=True)
class Choice:
    """One line; `words` is what typing is compared with. A choice with a `problem` stays listed and cannot be taken."""

    id: str
    line: Content
    words: str
    problem: str = ""


class Picker(ModalScreen[str | None]):
    """Answers the id of the chosen line, or None."""

    CSS_PATH = "sheets.tcss"

    BINDINGS: ClassVar = [
        Binding("escape", "leave", "back", id="picker.back", tooltip="Choose nothing"),
        Binding("down", "move(1)", "down", id="picker.down", show=False, tooltip="Next line"),
        Binding("up", "move(-1)", "up", id="picker.up", show=False, tooltip="Line before"),
    ]

    def __init__(self, title: str, choices: Sequence[Choice], empty: str) -> None:
        super().__init__()
        self._title, self._choices, self._empty = title, choices, empty

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet picker") as sheet:
            sheet.border_title = Content(self._title)
            sheet.border_subtitle = Content("type to filter · enter choose · esc back")
            yield Input(placeholder="filter", compact=True)
            listing = OptionList(compact=True, markup=False)
            listing.can_focus = False
            yield listing

    def on_mount(self) -> None:
        self._fill("")

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, text: str) -> None:
        words = text.lower().split()
        fitting = [c for c in self._choices if all(word in c.words.lower() for word in words)]
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_options([Option(_line(choice), id=choice.id) for choice in fitting])
        if not fitting:
            told = "nothing fits" if self._choices else self._empty
            listing.add_option(Option(Content.styled(told, "$foreground-muted"), disabled=True))
        else:
            listing.highlighted = 0

    def action_move(self, by: int) -> None:
        listing = self.query_one(OptionList)
        (listing.action_cursor_down if by > 0 else listing.action_cursor_up)()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        listing = self.query_one(OptionList)
        if listing.highlighted is not None:
            self._take(listing.get_option_at_index(listing.highlighted).id)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._take(event.option.id)

    def _take(self, chosen: str | None) -> None:
        choice = next((c for c in self._choices if c.id == chosen), None)
        if choice is None:
            return
        if choice.problem:
            self.notify(choice.problem, severity="warning", markup=False)
        else:
            self.dismiss(choice.id)

    def action_leave(self) -> None:
        self.dismiss(None)


def _line(choice: Choice) -> Content:
    if not choice.problem:
        return choice.line
    return Content.assemble(choice.line.stylize("dim"), "  ", (choice.problem, "$text-warning"))

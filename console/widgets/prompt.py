"""The chat's input: enter sends, ctrl+j breaks the line, up on an empty prompt edits the last question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from console.widgets.pane import Titled


class Prompt(Titled, TextArea):
    """A text area that grows from one line to six."""

    BINDINGS: ClassVar = [
        Binding("enter", "send", "send", id="prompt.send", priority=True, tooltip="Send the message"),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "new line", id="prompt.newline", priority=True, show=False,
                tooltip="Begin a new line"),
        Binding("up", "up_or_edit", "edit last", id="prompt.edit_last", show=False,
                tooltip="Line above; in an empty prompt: edit the last question"),
    ]
    DEFAULT_CSS = """
    Prompt {
        height: auto; max-height: 8; min-height: 3; border: round $foreground 22%; padding: 0 1;
        border-title-color: $foreground; border-title-style: none; scrollbar-size-vertical: 1;
    }
    Prompt:focus { border: round $accent; }
    """

    @dataclass
    class Submitted(Message):
        text: str

    class EditLast(Message):
        """The person wants the last question back."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False)
        self.show_hint("")

    def show_hint(self, hint: str) -> None:
        """What the words so far could become; without one, how to send them."""
        self.set_title("command" if hint else "message", hint or "enter sends · ctrl+j new line")

    def say(self, words: str) -> None:
        """Say what a command did, until something is typed."""
        self.set_title(words, "")

    # These bindings have priority, so they arrive before letters that were typed or pasted faster than they are drawn:
    # each takes its place behind them.

    def action_send(self) -> None:
        self.call_later(self._send)

    def action_newline(self) -> None:
        self.call_later(self.insert, "\n")

    def action_up_or_edit(self) -> None:
        if self.text:
            self.action_cursor_up()
        else:
            self.post_message(self.EditLast())

    def give_back(self, text: str) -> None:
        """`text` could not be sent: it stands before what was typed since."""
        self.text = text + self.text
        self.move_cursor(self.document.end)

    def _send(self) -> None:
        text = self.text
        self.clear()  # at once, so that what is typed ahead begins a message of its own
        self.post_message(self.Submitted(text))

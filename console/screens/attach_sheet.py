"""The sheet to follow a run that others started: which machine, which log or folder, and what was found there.

It answers a Wish or None and asks no machine itself: whenever what is typed has stood still for a moment, `Asked` is
posted, and `sighted` or `refused` shows the answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.suggester import Suggester, SuggestFromList
from textual.widgets import Button, Input, Static

from console.attaching import Sight
from console.text import clean_line

_LINES = (
    Content("Nanochat itself, of both eras, by what it prints: the file that its output goes to (tee, nohup, …), or a "
            "folder with *.log and the checkpoints. It is shown here as a run: curves, stages, checkpoints, log."),
    Content("Nothing is written on its machine, and nothing here can stop or resume it."),
)
_STILL_S = 0.5


@dataclass(frozen=True)
class Wish:
    """What to follow."""

    target: str
    path: str
    folder: bool = False


class Paths(Suggester):
    """Completes a path on the chosen machine; `find` may wait for a network and runs in a thread nobody waits for."""

    def __init__(self, find: Callable[[str], str | None]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._find = find

    async def get_suggestion(self, value: str) -> str | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()

        def settle(found: str | None) -> None:
            if not answer.done():
                answer.set_result(found)

        def work() -> None:
            found = self._find(value)
            with suppress(RuntimeError):  # the app has closed meanwhile
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=work, daemon=True, name="complete").start()
        return await answer


class AttachSheet(ModalScreen["Wish | None"]):
    """`find(target, path)` completes a path; `targets` are the names of the known machines."""

    CSS_PATH = "sheets.tcss"
    BINDINGS: ClassVar = [
        Binding("escape", "leave", "back", id="attach.back", tooltip="Follow nothing"),
        Binding("f5", "ask", "look again", id="attach.refresh", tooltip="Look at the path again"),
    ]

    @dataclass
    class Asked(Message):
        wish: Wish

    def __init__(self, targets: Sequence[str], target: str, find: Callable[[str, str], str | None]) -> None:
        super().__init__()
        self._targets, self._target, self._find = targets, target, find
        self._asked: Wish | None = None
        self._found: Wish | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet") as sheet:
            sheet.border_title = Content("Follow a run that others started")
            sheet.border_subtitle = Content("→ completes · tab moves · F5 looks again · esc back")
            with VerticalScroll(classes="sheet-text", can_focus=False):
                for line in _LINES:
                    yield Static(line, markup=False)
            yield Static("")
            with Horizontal(classes="sheet-inputs"):
                yield Static("machine   ", classes="label", markup=False)
                yield Input(self._target, id="target", compact=True, suggester=SuggestFromList(self._targets))
            with Horizontal(classes="sheet-inputs"):
                yield Static("path there", classes="label", markup=False)
                yield Input(placeholder="/path/of/train.log or ~/…", id="path", compact=True,
                            suggester=Paths(lambda path: self._find(self.wish.target, path)))
            yield Static(self._hint(), id="sight", markup=False)
            with Horizontal(classes="sheet-buttons"):
                yield Button(Content("Follow"), id="yes", disabled=True)
                yield Button(Content("Cancel"), id="no")

    def _hint(self) -> Content:
        return Content.styled(f"machines: {', '.join(clean_line(name, 40) for name in self._targets)}; t adds one",
                              "$foreground-muted")

    def on_mount(self) -> None:
        self.query_one("#path", Input).focus()

    def on_resize(self, event: events.Resize) -> None:
        """The inputs and buttons stay in sight."""
        self.query_one(".sheet-text").styles.max_height = max(event.size.height * 9 // 10 - 12, 1)

    @property
    def wish(self) -> Wish:
        return Wish(self.query_one("#target", Input).value.strip(), self.query_one("#path", Input).value.strip())

    def sighted(self, wish: Wish, sight: Sight) -> None:
        """Show what is there, unless something else is typed by now."""
        if wish != self.wish:
            return
        self._found = Wish(wish.target, wish.path, sight.folder)
        colour = "$text-success" if sight.era or sight.folder else "$text-warning"
        option = f"--{'dir' if sight.folder else 'log'} {sight.path}"
        self._tell(Content.assemble((clean_line(str(sight), 300), colour), "\n", ("same as  ", "$foreground-muted"),
                                    clean_line(f"llmconsole run attach --target {wish.target} {option}", 300)))
        self.query_one("#yes", Button).disabled = False

    def refused(self, wish: Wish, text: str, next: str) -> None:
        """Nothing can be followed there: why, and what to do."""
        if wish == self.wish:
            self._tell(Content.assemble((f"✗ {clean_line(text, 400)}", "$text-error"), "\n", clean_line(next, 200)))

    def _tell(self, what: Content) -> None:
        self.query_one("#sight", Static).update(what)

    @on(Input.Changed)
    def _changed(self) -> None:
        self._found = None
        self.query_one("#yes", Button).disabled = True
        self.set_timer(_STILL_S, self._ask_if_still, name="look")

    def _ask_if_still(self) -> None:
        if self.wish != self._asked and self.wish.path:
            self.action_ask()

    def action_ask(self) -> None:
        """Have somebody look at what is typed."""
        self._asked = self.wish
        self._tell(Content.styled("looking …", "$foreground-muted"))
        self.post_message(self.Asked(self.wish))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "target":
            self.query_one("#path", Input).focus()
        elif self._found is not None:
            self.query_one("#yes", Button).focus()
        else:
            self.action_ask()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self._found if event.button.id == "yes" else None)

    def action_leave(self) -> None:
        self.dismiss(None)

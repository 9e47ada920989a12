"""Screen 4: every checkpoint, where it is, whether its copies are proven, what moves now, and what would be lost.

It shows what `shelf` and `transfers` in `console.keeping` say and asks before anything happens; copying, proving and
deleting are the business of `console.keeping.backups`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from console.glance import Glance
from console.keeping.shelf import Item, Shelf
from console.keeping.transfers import Board, TransferDesk
from console.messages import BoardMoved, ModelsRead, ShelfRead, TransferEnded
from console.screens import checkpoint_lines as lines
from console.screens.base import ConsoleScreen
from console.screens.checkpoint_verbs import CheckpointVerbs
from console.screens.sheets import notice_sheet
from console.text import clean_line
from console.widgets.numbers import size
from console.widgets.pane import Titled

if TYPE_CHECKING:
    from engine.catalog import ModelInfo

NARROW = 110  # below this width the columns of places become one
_TRANSFERS = 3


class ModelList(Titled, Vertical):
    """The frame around header and rows."""


class TransferPane(Titled, Vertical):
    """The frame around what moves and what would be lost."""


class CheckpointsScreen(CheckpointVerbs, ConsoleScreen):
    MODE = "checkpoints"
    CSS_PATH = "checkpoints.tcss"
    HELP = ("Every checkpoint: on this machine, on a target, on the Hub, in a folder. Verified means that every byte "
            "of a copy was read back and was the same. Copies go where [backup] place in config.toml says.")
    BINDINGS: ClassVar = [
        Binding("b", "back_up", "back up now", id="checkpoints.backup", tooltip="Copy what is not proven yet"),
        Binding("V", "verify", "verify", id="checkpoints.verify", tooltip="Read every byte of the copies again"),
        Binding("p", "prune", "prune (dry run)", id="checkpoints.prune", tooltip="What may go because it is elsewhere"),
        Binding("R", "restore", "restore", id="checkpoints.restore", tooltip="Bring the marked one back"),
        Binding("S", "ask_gate", "safe?", id="checkpoints.safe", tooltip="Ask the copies: would anything be lost?"),
        Binding("X", "delete", "delete", id="checkpoints.delete", show=False, tooltip="Delete it here (typed)"),
        Binding("enter", "open", "details", id="checkpoints.open", tooltip="Everything about the marked checkpoint"),
        Binding("c", "chat", "chat", id="checkpoints.chat", tooltip="Talk to the marked model"),
        Binding("r", "app.read_models", "refresh", id="checkpoints.refresh", show=False, tooltip="Look again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(())
        self._models: tuple[ModelInfo, ...] = ()
        self._board = Board()
        self._asked = ""
        self._drawn: object = None
        self._moving: set[int] = set()
        self.desk = TransferDesk(lambda board: self._post(BoardMoved(board)),
                                 lambda end: self._post(TransferEnded(end)))

    def body(self) -> ComposeResult:
        with ModelList(id="models") as frame:
            frame.set_title("checkpoints")
            yield Static("", id="models-header", markup=False)
            yield OptionList(id="models-rows", markup=False, compact=True)
            yield Static(id="models-note", markup=False)
        with TransferPane(id="transfer") as pane:
            pane.set_title("transfer")
            yield Static(id="transfer-lines", markup=False)
            yield Static(id="transfer-safe", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#models-rows").focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.console_app.action_read_models()

    def show(self, glance: Glance) -> None:
        """Checkpoints change when a stage saves or a transfer ends; the disk is asked then."""

    @on(ModelsRead)
    def _models_read(self, message: ModelsRead) -> None:
        self._models = message.models
        self.read_shelf()

    @on(ShelfRead)
    def _shelf_read(self, message: ShelfRead) -> None:
        if message.shelf != self.shelf or not self._drawn:
            self.shelf = message.shelf
            self._fill()

    @on(BoardMoved)
    def _board_moved(self, message: BoardMoved) -> None:
        self._board = message.board
        self._draw_transfers()
        self._draw_moving()

    @on(TransferEnded)
    def _transfer_ended(self, message: TransferEnded) -> None:
        self._board, end = self.desk.board(), message.end
        self._asked = clean_line(end.answer, 400)
        self._draw_transfers()
        self.console_app.action_read_models()
        if end.good:
            self.app.notify(clean_line(end.text, 300), markup=False, timeout=8)
        else:
            self.app.push_screen(notice_sheet("Not done", clean_line(end.text, 600), [clean_line(end.next, 300)]))

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    @property
    def narrow(self) -> bool:
        return self.app.size.width < NARROW

    def _fill(self) -> None:
        rows, narrow = self.query_one("#models-rows", OptionList), self.narrow
        self.query_one("#models-header", Static).update(Content.styled(lines.header(narrow), "$foreground-muted"))
        marked = rows.highlighted_option.id if rows.highlighted_option else None
        rows.clear_options()
        self._moving = set()
        now = time.time()
        rows.add_options([Option(lines.row(item, now, narrow), id=str(item.name)) for item in self.shelf.items])
        ids = [str(item.name) for item in self.shelf.items]
        if ids:
            rows.highlighted = ids.index(marked) if marked in ids else 0
        note = Content("" if ids else "No checkpoint here yet. Press 1 and enter: training saves the first one after a "
                       "minute or two. `llmconsole ckpt import` brings one.")
        policy = self.console_app.settings.backup
        self.query_one("#models-note", Static).update(
            lines.policy_line(str(self.place()), policy.keep_best, policy.keep_last) if ids else note)
        total = sum(item.bytes for item in self.shelf.items if item.here is not None)
        told = f"{len(ids)} known · {size(total)} here" if ids else ""
        self.query_one("#models", ModelList).set_title("checkpoints", told)
        self._drawn = True
        self._draw_transfers()

    def _draw_transfers(self) -> None:
        """The lower pane: nothing but the answer when nothing moves."""
        moving = lines.transfer_lines(self._board, self.size.width, _TRANSFERS) if self._board.busy else []
        text = Content("\n").join(moving) if moving else Content("")
        pane = self.query_one("#transfer-lines", Static)
        pane.display = bool(moving)
        pane.update(text)
        self.query_one("#transfer-safe", Static).update(lines.safe_line(self.shelf, self._asked))
        told = self._board.job if self._board.busy else "idle"
        self.query_one("#transfer", TransferPane).set_title("transfer", clean_line(told, 80))

    def _draw_moving(self) -> None:
        """The rows of checkpoints that move, and of those that moved a moment ago."""
        rows, now = self.query_one("#models-rows", OptionList), time.time()
        words = {index: word for index, item in enumerate(self.shelf.items)
                 if (word := lines.moving(item, self._board))}
        if rows.option_count == len(self.shelf.items):
            for index in {*words, *self._moving}:
                line = lines.row(self.shelf.items[index], now, self.narrow, words.get(index, ""))
                rows.replace_option_prompt_at_index(index, line)
            self._moving = set(words)

    def marked(self) -> Item | None:
        """The checkpoint under the cursor."""
        option = self.query_one("#models-rows", OptionList).highlighted_option
        return next((item for item in self.shelf.items if option is not None and str(item.name) == option.id), None)

    def action_open(self) -> None:
        if (item := self.marked()) is not None:
            self.app.push_screen(notice_sheet("Checkpoint", clean_line(str(item.name)), lines.details(item)))

    @on(OptionList.OptionSelected, "#models-rows")
    def _selected(self) -> None:
        self.action_open()

    def action_chat(self) -> None:
        item = self.marked()
        if item is None or item.here is None:
            self.app.notify("It is not on this machine: R brings it here first.", markup=False)
            return
        folder = item.here.folder
        model = next((m for m in self._models if str(m.path) == folder and m.step == item.name.step), None)
        if model is not None:
            self.console_app.chat_with(model.ref)

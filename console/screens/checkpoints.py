"""Screen 4: every model on this machine: where it came from, how good it is, whether its files are proven whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from console.glance import Glance
from console.messages import ModelsRead
from console.screens.base import ConsoleScreen
from console.screens.sheets import notice_sheet
from console.text import clean_line
from console.widgets.numbers import ago, compact, grouped, short, size
from console.widgets.pane import Titled
from engine.catalog import ModelInfo

NARROW = 100  # below this width the columns weights, size and note are left out


class ModelList(Titled, Vertical):
    """The frame around header and rows."""


class CheckpointsScreen(ConsoleScreen):
    MODE = "checkpoints"
    CSS_PATH = "checkpoints.tcss"
    HELP = ("Every checkpoint below the artifacts folder. Verified means: our manifest is there and the sizes agree "
            "with it; one written by nanochat itself has no manifest and is shown as foreign.")
    BINDINGS: ClassVar = [
        Binding("enter", "open", "details", id="checkpoints.open", tooltip="Everything about the marked checkpoint"),
        Binding("c", "chat", "chat with it", id="checkpoints.chat", tooltip="Talk to the marked model"),
        Binding("r", "app.read_models", "refresh", id="checkpoints.refresh", tooltip="Look at the disk again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._models: tuple[ModelInfo, ...] = ()

    def body(self) -> ComposeResult:
        with ModelList(id="models") as frame:
            frame.set_title("checkpoints")
            yield Static("", id="models-header", markup=False)
            yield OptionList(id="models-rows", markup=False, compact=True)
            yield Static(id="models-note", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#models-rows").focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.console_app.action_read_models()

    def show(self, glance: Glance) -> None:
        """Models change when a stage saves; the disk is asked then."""

    @on(ModelsRead)
    def _models_read(self, message: ModelsRead) -> None:
        rows = self.query_one("#models-rows", OptionList)
        if message.models != self._models or not rows.options:
            self._models = message.models
            self._fill()

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    def _fill(self) -> None:
        rows, narrow = self.query_one("#models-rows", OptionList), self.app.size.width < NARROW
        self.query_one("#models-header", Static).update(Content.styled(header(narrow), "$foreground-muted"))
        marked = rows.highlighted_option.id if rows.highlighted_option else None
        rows.clear_options()
        now = time.time()
        rows.add_options([Option(model_line(model, now, narrow), id=model.ref) for model in self._models])
        ids = [model.ref for model in self._models]
        if ids:
            rows.highlighted = ids.index(marked) if marked in ids else 0
        self.query_one("#models-note", Static).update(Content(_note(self._models)))
        total = sum(model.bytes for model in self._models)
        told = f"{len(ids)} here · {size(total)}" if ids else ""
        self.query_one("#models", ModelList).set_title("checkpoints", told)

    def _marked(self) -> ModelInfo | None:
        option = self.query_one("#models-rows", OptionList).highlighted_option
        return next((model for model in self._models if option is not None and model.ref == option.id), None)

    def action_open(self) -> None:
        if (model := self._marked()) is not None:
            self.app.push_screen(notice_sheet("Checkpoint", clean_line(model.ref), _details(model)))

    @on(OptionList.OptionSelected, "#models-rows")
    def _selected(self) -> None:
        self.action_open()

    def action_chat(self) -> None:
        if (model := self._marked()) is not None:
            self.console_app.chat_with(model.ref)


def header(narrow: bool) -> str:
    """The names of the columns, over `model_line`."""
    middle = "" if narrow else f"{'weights':>10}{'size':>11}"
    return f"  {'run':<{23 if narrow else 28}}{'from':<6}{'step':>8}{'val bpb':>10}{middle}   {'files':<13}age"


def model_line(model: ModelInfo, now: float, narrow: bool) -> Content:
    """One row of the table; a checkpoint that cannot be used says why."""
    where = clean_line(model.run_id or "nanochat folder", 22 if narrow else 27)
    weights = compact(model.n_params) if model.n_params else "–"
    middle = "" if narrow else f"{weights:>10}{size(model.bytes):>11}"
    name = f"  {where:<{23 if narrow else 28}}{model.source:<6}"
    cells = f"{name}{grouped(model.step):>8}{short(model.val_bpb, 4):>10}{middle}   "
    if model.problem:
        return Content.assemble((cells, "dim"), (f"✗ {clean_line(model.problem, 200)}", "$text-error"))
    word, colour = ("✓ verified", "$text-success") if model.verified else ("? foreign", "$text-warning")
    return Content.assemble(cells, (f"{word:<13}", colour), (ago(model.created, now), "$foreground-muted"))


def _note(models: Sequence[ModelInfo]) -> str:
    if not models:
        return "No checkpoint here yet. Press 1 and enter: training saves the first one after a minute or two."
    return ""


def _details(model: ModelInfo) -> list[str]:
    config = model.config
    shape = (f"{config.n_layer} layers, {config.n_embd} channels, {config.n_head} heads, "
             f"context {config.sequence_len}, {config.vocab_size} tokens") if config else "unknown"
    return [f"folder     {model.path}", f"tokenizer  {model.tokenizer_dir}", f"shape      {shape}",
            f"size       {size(model.bytes)}", f"problem    {model.problem or 'none'}"]

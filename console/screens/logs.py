"""Screen 3: the whole log of a stage, to read, filter and search while it grows."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from console.glance import Glance, RunDetail
from console.log_file import FileSource
from console.lookout import job_log
from console.rental.rentals import RENTAL_LOG
from console.runlog.queries import Stage
from console.screens.base import ConsoleScreen
from console.text import clean_line
from console.widgets.log_view import LogView
from console.widgets.pane import Titled
from console.widgets.states import STAGE

SUPERVISOR = "job"


class StageList(Titled, OptionList):
    """The stages of the run; the marked one's log is shown."""


class LogsScreen(ConsoleScreen):
    MODE = "logs"
    CSS_PATH = "logs.tcss"
    HELP = ("The full log. At its end it follows; scroll up and what you read stays put while lines arrive. "
            "A filter is a regular expression, case matters once you type a capital; esc shows everything again with "
            "the matches still marked, n and N jump through them.")
    BINDINGS: ClassVar = [
        Binding("slash", "filter", "filter", id="logs.filter", key_display="/",
                tooltip="Show only the lines that match"),
        Binding("escape", "clear", "clear filter", id="logs.clear", show=False,
                tooltip="Show all lines; again: forget the filter"),
        Binding("left_square_bracket", "stage(-1)", "stage before", id="logs.stage_previous", key_display="[",
                tooltip="Log of the stage before"),
        Binding("right_square_bracket", "stage(1)", "next stage", id="logs.stage_next", key_display="]",
                tooltip="Log of the next stage"),
        Binding("r", "app.choose_run", "runs", id="logs.choose", show=False, tooltip="Show another run"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._detail: RunDetail | None = None
        self._stage: str | None = None
        self._open: tuple[str, str] | None = None

    def body(self) -> ComposeResult:
        with Horizontal():
            stages = StageList(id="stages", markup=False, compact=True)
            stages.set_title("stages")
            yield stages
            with Vertical():
                yield LogView(id="log", empty="nothing printed yet; press 2 and s to start a run")
                filter_bar = Input(id="filter", compact=True, placeholder="filter: a regular expression")
                filter_bar.display = False
                yield filter_bar

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#log").focus()
        self.set_interval(0.25, self._poll)

    def _poll(self) -> None:
        if self.is_current and self._detail is not None and self._detail.state.alive:
            self.query_one("#log", LogView).poll()

    def show(self, glance: Glance) -> None:
        before, self._detail = self._detail, glance.detail
        if glance.detail is None:
            return
        if before is not None and before.run.id != glance.detail.run.id:
            self._stage = None
        self._show_stages(glance.detail)
        self._show_log(glance.detail)

    def _shown(self, detail: RunDetail) -> str:
        machine = RENTAL_LOG if RENTAL_LOG in self._ids(detail) else SUPERVISOR
        return self._stage or detail.state.stage or machine

    def _ids(self, detail: RunDetail) -> list[str]:
        machine = [RENTAL_LOG] if detail.folder.stage_log(RENTAL_LOG).exists() else []
        return [*(stage.id for stage in detail.stages), SUPERVISOR, *machine]

    def _show_stages(self, detail: RunDetail) -> None:
        listing = self.query_one("#stages", StageList)
        ids = self._ids(detail)
        lines = [_stage_line(stage) for stage in detail.stages] + [Content.styled("· supervisor", "$foreground-muted")]
        if RENTAL_LOG in ids:
            lines.append(Content.styled("· machine", "$foreground-muted"))
        if [option.id for option in listing.options] != ids:
            listing.clear_options()
            listing.add_options([Option(line, id=i) for i, line in zip(ids, lines, strict=True)])
        else:
            for stage_id, line, option in zip(ids, lines, listing.options, strict=True):
                if option.prompt != line:
                    listing.replace_option_prompt(stage_id, line)
        shown = self._shown(detail)
        with self.prevent(OptionList.OptionHighlighted):
            listing.highlighted = ids.index(shown) if shown in ids else None

    def _show_log(self, detail: RunDetail) -> None:
        stage = self._shown(detail)
        if self._open == (detail.run.id, stage):
            return
        self._open = (detail.run.id, stage)
        attempt = max(detail.state.attempt, 1)
        output = Path(job_log(str(detail.folder.path), attempt))
        path = output if stage == SUPERVISOR else detail.folder.stage_log(stage)
        name = f"{clean_line(detail.run.id, 40)} · {clean_line(stage, 30)}"
        self.query_one("#log", LogView).open(name, FileSource(path))

    @on(OptionList.OptionHighlighted, "#stages")
    def _picked(self, event: OptionList.OptionHighlighted) -> None:
        if self._detail is not None and event.option.id and event.option.id != self._shown(self._detail):
            self._choose(event.option.id)

    def _choose(self, stage: str) -> None:
        self._stage = stage
        if self._detail is not None:
            self.show(Glance((), self._detail))

    def action_stage(self, by: int) -> None:
        if self._detail is not None:
            ids = self._ids(self._detail)
            shown = self._shown(self._detail)
            at = ids.index(shown) if shown in ids else 0
            self._choose(ids[max(0, min(at + by, len(ids) - 1))])

    def action_filter(self) -> None:
        bar = self.query_one("#filter", Input)
        bar.display = True
        bar.focus()

    @on(Input.Changed, "#filter")
    def _filter_typed(self, event: Input.Changed) -> None:
        self.query_one("#log", LogView).search_for(event.value, hide=True)

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        bar = self.query_one("#filter", Input)
        bar.display = bool(bar.value)
        self.query_one("#log").focus()

    def action_clear(self) -> None:
        bar, log = self.query_one("#filter", Input), self.query_one("#log", LogView)
        if log.filtering:
            log.show_all()
        else:
            with self.prevent(Input.Changed):
                bar.value = ""
            log.search_for("", hide=False)
        bar.display = False
        log.focus()


def _stage_line(stage: Stage) -> Content:
    glyph, colour = STAGE.get(stage.state, STAGE["waiting"])
    return Content.assemble((glyph, colour), f" {clean_line(stage.title, 18)}")

"""Screen 2: one run, live. Stages and progress, curves, the machine, checkpoints, the end of the log, and its end.

The charts and their keys are `console.screens.run_curves`; here are the panes around them.
"""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from console.glance import Glance, Rented, RunDetail, Side
from console.log_file import FileSource
from console.rental.rentals import RENTAL_LOG
from console.screens.run_curves import RunCurves
from console.screens.run_lines import checkpoint_lines, state_line
from console.screens.step_lines import STROKES
from console.text import clean_line
from console.widgets.chart import Chart
from console.widgets.log_view import LogView
from console.widgets.machine import machine_lines, machine_summary
from console.widgets.rented import rented_line, rented_lines
from console.widgets.report_card import card_lines, compared_lines, headline, scores
from console.widgets.stage_strip import StageStrip
from console.widgets.text_pane import TextPane

_NO_RUN = " No run yet. Press s to train a tiny model here; it takes some minutes and costs nothing."


class RunScreen(RunCurves):
    MODE = "run"
    CSS_PATH = "run.tcss"
    HELP = ("Everything about one run while it happens. Charts keep spikes; × marks a step without a finite number. "
            "Leaving or closing the console never stops the work.")
    BINDINGS: ClassVar = [
        Binding("s", "app.start_or_resume", "start/resume", id="run.start",
                tooltip="Resume this run, or start the tiny recipe"),
        Binding("x", "app.stop_run", "stop", id="run.stop", tooltip="Finish the step, save, stop; asks first"),
        *RunCurves.CURVE_KEYS,
        Binding("left_square_bracket", "stage(-1)", "stage before", id="run.stage_previous", key_display="[",
                show=False, tooltip="Curves and log of the stage before"),
        Binding("right_square_bracket", "stage(1)", "next stage", id="run.stage_next", key_display="]", show=False,
                tooltip="Curves and log of the next stage"),
        Binding("f", "follow", "follow", id="run.follow", show=False,
                tooltip="Back to the stage that runs, and to the end of the log"),
        Binding("z", "zoom", "zoom", id="run.zoom", show=False, tooltip="The focused pane alone, and back"),
        Binding("r", "app.choose_run", "runs", id="run.choose", show=False, tooltip="Show another run"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rented = Rented()
        self._log_open: tuple[str, str] | None = None

    def body(self) -> ComposeResult:
        yield StageStrip(id="strip")
        yield Static(id="run-state", markup=False)
        yield Static(id="rented-line", markup=False)
        yield Static(id="legend", markup=False)
        with Container(id="run-body"):
            with Horizontal(id="upper"):
                with Container(id="charts"):
                    for number in range(4):
                        chart = Chart(id=f"chart-{number}")
                        chart.can_focus = True
                        yield chart
                with Vertical(id="side"):
                    yield TextPane(id="rented")
                    yield TextPane(id="card")
                    yield TextPane(id="machine")
                    yield TextPane(id="saves")
            yield LogView(id="tail", empty="the log is empty so far")
            yield TextPane(id="inspect")

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.25, self._poll_log)

    def _poll_log(self) -> None:
        if self.is_current and self._detail is not None and self._detail.state.alive:
            self.query_one("#tail", LogView).poll()

    def show(self, glance: Glance) -> None:
        self._detail, self._rented, self._beside = glance.detail, glance.rented, glance.beside
        detail = glance.detail
        self.query_one("#run-body").set_class(detail is None, "-empty")
        state = self.query_one("#run-state", Static)
        if detail is None:
            state.update(Content(_NO_RUN))
            return
        stage = self.shown_stage()
        self.query_one(StageStrip).show(detail.stages, stage)
        self._show_state(detail)
        self._show_side(detail)
        self._show_rented(glance.rented)
        self._show_log(detail)
        self.ask_curves()
        if self._inspecting:
            self.ask_step()

    def _show_state(self, detail: RunDetail) -> None:
        machine = machine_summary(detail.system.data) if detail.system else ""
        self.query_one("#run-state", Static).update(state_line(detail, machine, self.console_app.newest_alert()))

    def tick(self) -> None:
        super().tick()
        if self._detail is not None:
            self._show_state(self._detail)

    def _show_side(self, detail: RunDetail) -> None:
        card = self.query_one("#card", TextPane)
        finished = str(detail.state.word) == "finished"
        sides = (Side(detail.run, detail.stages, detail.evals), *self._beside)
        card.display = finished or bool(scores(detail.evals)) or bool(self._beside)
        self.query_one("#machine").display = not finished and not detail.run.attached
        self.query_one("#run-body").set_class(finished, "-finished")
        if self._beside:
            card.show("report cards", "best in bold", sides, lambda width: compared_lines(sides, STROKES, width))
        elif card.display:
            card.show("report card", headline(scores(detail.evals)), (len(detail.evals), finished),
                      lambda width: card_lines(detail.evals, detail.stages, width))
        system = detail.system
        hint = "power, not just util" if system and system.data.get("gpus") else ""
        self.query_one("#machine", TextPane).show("machine", hint, system.t if system else None,
                                                  lambda width: machine_lines(system.data if system else {}, width))
        key = detail.checkpoints, int(time.time() / 20)  # the ages grow
        self.query_one("#saves", TextPane).show("checkpoints", _count(detail), key,
                                                lambda width: checkpoint_lines(detail, width))

    def _show_rented(self, rented: Rented) -> None:
        """The machine behind the run while it lives, and how it ended."""
        pane, here = self.query_one("#rented", TextPane), rented.here
        pane.display = here is not None
        line = self.query_one("#rented-line", Static)
        line.set_class(here is not None and not here.settled, "-there")
        line.update(rented_line(here) if here is not None else "")
        if here is not None:
            key = here, int(time.time())
            pane.show("rented machine", clean_line(str(here.detail.get("target", "")), 20), key,
                      lambda width: rented_lines(here, rented.journal, width))

    def _show_log(self, detail: RunDetail) -> None:
        stage = self._stage or detail.state.stage or RENTAL_LOG
        if self._log_open == (detail.run.id, stage):
            return
        self._log_open = (detail.run.id, stage)
        found = detail.stage(stage)
        name = f"log {clean_line(found.title if found else stage, 30)}"
        self.query_one("#tail", LogView).open(name, FileSource(detail.folder.stage_log(stage)))

    # keys

    def action_stage(self, by: int) -> None:
        if self._detail is None or not self._detail.stages:
            return
        ids = [stage.id for stage in self._detail.stages]
        here = self.shown_stage()
        at = ids.index(here) if here in ids else 0
        self._stage = ids[max(0, min(at + by, len(ids) - 1))]
        self._page, self._step, self._asked = 0, None, None
        self._again()
        self.draw()

    def action_follow(self) -> None:
        self._stage = None
        self.query_one("#tail", LogView).action_follow()
        self._again()

    def _again(self) -> None:
        """Show what is known, with what was chosen since."""
        if self._detail is not None:
            self.show(Glance((), self._detail, self._rented, self._beside))

    def action_zoom(self) -> None:
        if self.maximized is not None:
            self.minimize()
        elif self.focused is not None:
            self.maximize(self.focused, container=False)


def _count(detail: RunDetail) -> str:
    return f"{len(detail.checkpoints)} {'there' if detail.run.attached else 'here'}"


"""Screen 2: one run, live. Stages and progress, curves, the machine, checkpoints, the end of the log, and its end.

Which curves and which stage are decided here; reading them is the reader's business, drawing them the charts'.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from console.glance import CurveWish, Drawn, Glance, Rented, RunDetail
from console.log_file import FileSource
from console.messages import CurvesRead
from console.rental.rentals import RENTAL_LOG
from console.screens.base import ConsoleScreen
from console.screens.run_lines import checkpoint_lines, state_line
from console.text import clean_line
from console.widgets.axis import X_AXES
from console.widgets.chart import Chart, ChartView, dot_columns
from console.widgets.log_view import LogView
from console.widgets.machine import machine_lines, machine_summary
from console.widgets.rented import rented_line, rented_lines
from console.widgets.report_card import card_lines, headline, scores
from console.widgets.stage_strip import StageStrip
from console.widgets.text_pane import TextPane

T = TypeVar("T")
TITLES = {"loss": "train loss", "reward": "reward", "val_bpb": "val bpb", "val_loss": "val loss", "core_metric": "CORE",
          "chatcore_metric": "ChatCORE", "pass@1": "pass@1", "sequence_length": "tokens per answer",
          "tok_per_sec": "tok/s", "mfu": "MFU",
          "lrm": "lr multiplier", "grad_norm": "gradient norm", "dt": "seconds per step", "cpu_percent": "cpu %",
          "rss_gb": "memory of the stage, GB"}
_NOT_DRAWN = frozenset({"tokens", "train_time", "mem_used_gb", "mem_total_gb"})
_BY_TIME = frozenset({"cpu_percent", "rss_gb"})  # measured between steps
_SMOOTHED = frozenset({"loss", "grad_norm", "reward"})
_STEADY = frozenset({"tok_per_sec", "mfu", "dt"})
_NO_RUN = " No run yet. Press s to train a tiny model here; it takes some minutes and costs nothing."
SMOOTHINGS = (0.0, 0.6, 0.9)


class RunScreen(ConsoleScreen):
    MODE = "run"
    CSS_PATH = "run.tcss"
    HELP = ("Everything about one run while it happens. Charts keep spikes; × marks a step without a finite number. "
            "Leaving or closing the console never stops the work.")
    BINDINGS: ClassVar = [
        Binding("s", "app.start_or_resume", "start/resume", id="run.start",
                tooltip="Resume this run, or start the tiny recipe"),
        Binding("x", "app.stop_run", "stop", id="run.stop", tooltip="Finish the step, save, stop; asks first"),
        Binding("n", "page(1)", "more charts", id="run.page_next", tooltip="Next page of charts"),
        Binding("N", "page(-1)", "charts back", id="run.page_previous", show=False,
                tooltip="Previous page of charts"),
        Binding("v", "log_scale", "log scale", id="run.log_scale",
                tooltip="Log scale of the focused chart, or the first"),
        Binding("V", "log_scale_all", "log scale, all", id="run.log_scale_all", show=False,
                tooltip="Log scale of every chart"),
        Binding("e", "smooth", "smooth", id="run.smooth", tooltip="Smoothing: off, 0.6, 0.9"),
        Binding("a", "x_axis", "x axis", id="run.x_axis", tooltip="Horizontal axis: steps, tokens, time"),
        Binding("w", "robust", "y range", id="run.robust", show=False,
                tooltip="Leave the outer hundredths out of the range, or not"),
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
        self._detail: RunDetail | None = None
        self._rented = Rented()
        self._stage: str | None = None  # chosen by hand; None follows the run
        self._log_open: tuple[str, str] | None = None
        self._page = 0
        self._x_axis, self._smoothing, self._robust = "step", 0.6, False
        self._log_scaled: set[str] = set()
        self._drawn: dict[str, Drawn] = {}

    def body(self) -> ComposeResult:
        yield StageStrip(id="strip")
        yield Static(id="run-state", markup=False)
        yield Static(id="rented-line", markup=False)
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

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.25, self._poll_log)

    def _poll_log(self) -> None:
        if self.is_current and self._detail is not None and self._detail.state.alive:
            self.query_one("#tail", LogView).poll()

    def show(self, glance: Glance) -> None:
        self._detail, self._rented = glance.detail, glance.rented
        detail = glance.detail
        self.query_one("#run-body").set_class(detail is None, "-empty")
        state = self.query_one("#run-state", Static)
        if detail is None:
            state.update(Content(_NO_RUN))
            return
        stage = self.shown_stage()
        self.query_one(StageStrip).show(detail.stages, stage)
        state.update(state_line(detail, machine_summary(detail.system.data) if detail.system else ""))
        self._show_side(detail)
        self._show_rented(glance.rented)
        self._show_log(detail)
        self._ask_curves()

    def shown_stage(self) -> str | None:
        """The stage whose curves are drawn: the chosen one, else the last that has curves."""
        if self._detail is None:
            return None
        charted = self._detail.charted
        return self._stage or (charted[-1] if charted else self._detail.state.stage)

    def _show_side(self, detail: RunDetail) -> None:
        card = self.query_one("#card", TextPane)
        finished = str(detail.state.word) == "finished"
        card.display = finished or bool(scores(detail.evals))
        self.query_one("#machine").display = not finished and not detail.run.attached
        self.query_one("#run-body").set_class(finished, "-finished")
        if card.display:
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

    # charts

    def names(self) -> list[str]:
        """The curves of the shown stage, the best known first."""
        stage = self.shown_stage()
        present = self._detail.latest.get(stage, {}) if self._detail and stage else {}
        known = [name for name in TITLES if name in present]
        return known + sorted(n for n in present if n not in TITLES and n not in _NOT_DRAWN and "/" not in n)

    def _charts(self) -> list[Chart]:
        return [chart for chart in self.query(Chart) if chart.display]

    def _visible_charts(self) -> int:
        if self.has_class("-narrow") or self.has_class("-tiny"):
            return 2
        return 2 if self.has_class("-short") else 4

    def _page_names(self) -> list[str]:
        names, room = self.names(), self._visible_charts()
        pages = max(-(-len(names) // room), 1)
        self._page %= pages
        return names[self._page * room:(self._page + 1) * room]

    def _ask_curves(self) -> None:
        detail, stage = self._detail, self.shown_stage()
        if detail is None or stage is None:
            return
        columns = dot_columns(max((chart.size.width for chart in self._charts()), default=self.size.width // 2))
        self.console_app.ask_curves(tuple(self._wish(detail.run.id, stage, n, columns) for n in self._page_names()))

    def _wish(self, run: str, stage: str, name: str, columns: int) -> CurveWish:
        x = "time" if self._x_axis == "time" or name in _BY_TIME else "step"
        return CurveWish(run, stage, name, x, self._smoothing if name in _SMOOTHED else 0.0, columns)

    @on(CurvesRead)
    def _curves_read(self, message: CurvesRead) -> None:
        self._drawn = message.curves
        self._show_charts()

    def _show_charts(self) -> None:
        names, room = self._page_names(), self._visible_charts()
        for number, chart in enumerate(self.query(Chart)):
            chart.display = number < room
            if number < len(names):
                chart.show(self._view(names[number]))
            elif number < room:
                chart.show(ChartView(waiting=self._waiting(number)))

    def _waiting(self, number: int) -> str:
        return "curves appear when training starts" if number == 0 and not self.names() else ""

    def _view(self, name: str) -> ChartView:
        title = TITLES.get(name, clean_line(name, 30))
        drawn = self._drawn.get(name)
        if drawn is None or drawn.wish.stage != self.shown_stage():
            return ChartView(name=title, waiting="reading …")
        zero, factor = self._x_scale(drawn)
        return ChartView(title, drawn.raw, drawn.smooth, drawn.last, name in self._log_scaled, self._robust,
                         "time" if drawn.wish.x == "time" else self._x_axis, zero, factor, drawn.wish.smooth,
                         extra=" %" if name == "mfu" else "", least=0.3 if name in _STEADY else 0.0)

    def _x_scale(self, drawn: Drawn) -> tuple[float, float]:
        stage = self._detail.stage(drawn.wish.stage) if self._detail else None
        if drawn.wish.x == "time":
            return (stage.started if stage and stage.started else 0.0), 1.0
        per_step = stage.config.get("tokens_per_step") if stage and self._x_axis == "tokens" else None
        return 0.0, float(per_step) if isinstance(per_step, (int, float)) else 1.0

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._after_resize)

    def _after_resize(self) -> None:
        self._show_charts()
        self._ask_curves()

    # keys

    def action_page(self, by: int) -> None:
        self._page += by
        self._show_charts()
        self._ask_curves()

    def action_log_scale(self) -> None:
        names = self._page_names()
        charts = self._charts()
        number = charts.index(self.focused) if self.focused in charts else 0
        if number < len(names):
            self._log_scaled ^= {names[number]}
            self._show_charts()

    def action_log_scale_all(self) -> None:
        names = set(self.names())
        self._log_scaled = set() if names <= self._log_scaled else names
        self._show_charts()

    def action_smooth(self) -> None:
        self._smoothing = _after(self._smoothing, SMOOTHINGS)
        self._ask_curves()

    def action_x_axis(self) -> None:
        self._x_axis = _after(self._x_axis, X_AXES)
        self._ask_curves()

    def action_robust(self) -> None:
        self._robust = not self._robust
        self._show_charts()

    def action_stage(self, by: int) -> None:
        if self._detail is None or not self._detail.stages:
            return
        ids = [stage.id for stage in self._detail.stages]
        here = self.shown_stage()
        at = ids.index(here) if here in ids else 0
        self._stage = ids[max(0, min(at + by, len(ids) - 1))]
        self._page = 0
        self.show(Glance((), self._detail, self._rented))
        self._show_charts()

    def action_follow(self) -> None:
        self._stage = None
        self.query_one("#tail", LogView).action_follow()
        if self._detail is not None:
            self.show(Glance((), self._detail, self._rented))

    def action_zoom(self) -> None:
        if self.maximized is not None:
            self.minimize()
        elif self.focused is not None:
            self.maximize(self.focused, container=False)


def _count(detail: RunDetail) -> str:
    return f"{len(detail.checkpoints)} {'there' if detail.run.attached else 'here'}"


def _after(value: T, choices: Sequence[T]) -> T:
    """The choice after `value`, around."""
    return choices[(choices.index(value) + 1) % len(choices)]

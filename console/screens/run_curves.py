"""The charts of the run screen and their keys: which curves, over which axis, beside which other runs, and what every
one of them was at the step under the crosshair.

What is decided here is asked for; reading is the reader's business and drawing the charts'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from textual import events, on
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Static

from console.crosshair import Place, StepFound, StepWish
from console.curves import CurveWish, Drawn
from console.glance import RunDetail, Side
from console.messages import CurvesRead, StepRead
from console.runlog.queries import Stage
from console.screens.base import ConsoleScreen
from console.screens.step_lines import TITLES, legend, step_lines, step_title
from console.text import clean_line
from console.widgets.axis import X_AXES
from console.widgets.chart import Beside, Chart, ChartView, dot_columns
from console.widgets.text_pane import TextPane

T = TypeVar("T")
MOST_BESIDE = 2
SMOOTHINGS = (0.0, 0.6, 0.9)
_NOT_DRAWN = frozenset({"tokens", "train_time", "mem_used_gb", "mem_total_gb"})
_BY_TIME = ("cpu_percent", "rss_gb", "gpu")  # measured between steps: names, or what they begin with
_SMOOTHED = frozenset({"loss", "grad_norm", "reward"})
_STEADY = frozenset({"tok_per_sec", "mfu", "dt"})


class RunCurves(ConsoleScreen):
    """Mixed into the run screen, which has four charts and the panes `#legend`, `#inspect` and `#tail`."""

    CURVE_KEYS: ClassVar = [
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
        Binding("c", "app.compare", "compare", id="run.compare",
                tooltip="Draw another run beside this one, or take it away"),
        Binding("b", "app.go('checkpoints', 'back_up')", "back up", id="run.backup", show=False,
                tooltip="Copy the checkpoints that are not proven yet; asks where to"),
        Binding("i", "inspect", "inspect", id="run.inspect", tooltip="Crosshair: every value at one step, exactly"),
        Binding("left", "cross(-1)", "step before", id="run.cross_left", show=False, tooltip="Crosshair: step before"),
        Binding("right", "cross(1)", "next step", id="run.cross_right", show=False, tooltip="Crosshair: next step"),
        Binding("shift+left", "cross(-10)", "10 before", id="run.cross_left_far", show=False,
                tooltip="Crosshair: ten steps back"),
        Binding("shift+right", "cross(10)", "10 on", id="run.cross_right_far", show=False,
                tooltip="Crosshair: ten steps on"),
        Binding("escape", "less", "end comparing", id="run.less", show=False,
                tooltip="Away with the crosshair, then with the runs beside"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._detail: RunDetail | None = None
        self._beside: tuple[Side, ...] = ()
        self._stage: str | None = None  # chosen by hand; None follows the run
        self._page = 0
        self._x_axis, self._smoothing, self._robust = "step", 0.6, False
        self._log_scaled: set[str] = set()
        self._drawn: dict[tuple[str, str], Drawn] = {}
        self._inspecting = False
        self._step: StepFound | None = None
        self._asked: StepWish | None = None  # and not answered yet

    # which run, stage, curves

    def shown_stage(self) -> str | None:
        """The stage whose curves are drawn: the chosen one, else the last that has curves."""
        if self._detail is None:
            return None
        charted = self._detail.charted
        return self._stage or (charted[-1] if charted else self._detail.state.stage)

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

    def _sides(self) -> Iterator[tuple[str, Stage]]:
        """(run, stage) of every run that is drawn, the one in front first."""
        stage = self._detail.stage(self.shown_stage()) if self._detail else None
        if self._detail is not None and stage is not None:
            yield self._detail.run.id, stage
            for side in self._beside[:MOST_BESIDE]:
                if (like := side.like(stage)) is not None:
                    yield side.run.id, like

    def _axis(self, name: str) -> str:
        """What the chart of this curve counts: what cannot be counted for every run shown is counted in steps."""
        if name.startswith(_BY_TIME):
            return "time"
        counted = all(_tokens_per_step(stage) for _, stage in self._sides())
        return "step" if self._x_axis == "tokens" and not counted else self._x_axis

    def _scale(self, stage: Stage, axis: str) -> tuple[float, float]:
        """How this stage's own x becomes a place on the axis: zero and factor."""
        if axis == "time":
            return stage.started or 0.0, 1.0
        return 0.0, _tokens_per_step(stage) if axis == "tokens" else 1.0

    # asking and drawing

    def ask_curves(self) -> None:
        """Ask for what is on this page, of every run shown."""
        columns = dot_columns(max((chart.size.width for chart in self._charts()), default=self.size.width // 2))
        wishes = tuple(CurveWish(run, stage.id, name, "time" if self._axis(name) == "time" else "step",
                                 self._smoothing if name in _SMOOTHED else 0.0, columns)
                       for run, stage in self._sides() for name in self._page_names())
        if wishes:
            self.console_app.reader.ask_curves(wishes)

    @on(CurvesRead)
    def _curves_read(self, message: CurvesRead) -> None:
        self._drawn = message.curves
        self.draw()

    def draw(self) -> None:
        """Show what has been read so far."""
        names, room = self._page_names(), self._visible_charts()
        for number, chart in enumerate(self.query(Chart)):
            chart.display = number < room
            if number < len(names):
                chart.show(self._view(names[number]))
            elif number < room:
                chart.show(ChartView(waiting=self._waiting(number)))
        self._show_legend()

    def _waiting(self, number: int) -> str:
        return "curves appear when training starts" if number == 0 and not self.names() else ""

    def _view(self, name: str) -> ChartView:
        title, axis = TITLES.get(name, clean_line(name, 30)), self._axis(name)
        drawn = [(stage, self._drawn.get((run, name))) for run, stage in self._sides()]
        if not drawn or (first := drawn[0][1]) is None or first.wish.stage != drawn[0][0].id:
            return ChartView(name=title, waiting="reading …")
        zero, factor = self._scale(drawn[0][0], axis)
        others = tuple(Beside(other.smooth or other.raw, other.last, *self._scale(stage, axis))
                       for stage, other in drawn[1:] if other is not None)
        cross, at_cross = self._cross_at(name, axis)
        return ChartView(title, first.raw, first.smooth, first.last, name in self._log_scaled, self._robust, axis, zero,
                         factor, first.wish.smooth, extra=" %" if name == "mfu" else "",
                         least=0.3 if name in _STEADY else 0.0, beside=others, cross=cross, at_cross=at_cross)

    def _show_legend(self) -> None:
        sides = list(self._sides())
        bar = self.query_one("#legend", Static)
        bar.display = len(sides) > 1 or bool(self._beside)
        missing = len(self._beside[:MOST_BESIDE]) - len(sides) + 1
        bar.update(legend([run for run, _ in sides], missing))

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._after_resize)

    def _after_resize(self) -> None:
        self.draw()
        self.ask_curves()

    # the crosshair

    def _cross_at(self, name: str, axis: str) -> tuple[float | None, float | None]:
        """Where the crosshair stands in the chart of this curve, and the value there."""
        here = self._step.found[0] if self._inspecting and self._step else None
        if here is None:
            return None, None
        _, stage = next(self._sides())
        zero, factor = self._scale(stage, axis)
        value = here.values.get(name)
        return ((here.t if axis == "time" else here.step) - zero) * factor, value[0] if value else None

    def ask_step(self, move: int = 0) -> None:
        """Ask for the values under the crosshair, `move` steps on."""
        by_time = self._x_axis == "time"
        axis = self._axis("loss")
        places = tuple(Place(run, stage.id, *self._scale(stage, axis)) for run, stage in self._sides())
        here = self._step.found[0] if self._step else None
        step = here.step if here else None
        if self._asked is not None:  # keys come faster than answers: go on from where this one will be
            step, move = self._asked.step, self._asked.move + move
        if places:
            self._asked = StepWish(places, step, move, by_time)
            self.console_app.reader.ask_step(self._asked)

    @on(StepRead)
    def _step_read(self, message: StepRead) -> None:
        wish = message.found.wish
        if not self._inspecting or [(p.run, p.stage) for p in wish.places] != [(r, s.id) for r, s in self._sides()]:
            return
        self._step = message.found
        if wish is self._asked:
            self._asked = None
        self._show_step()
        self.draw()

    def _show_step(self) -> None:
        found, pane = self._step, self.query_one("#inspect", TextPane)
        if found is None or found.found[0] is None:
            pane.show("crosshair", "i leaves", None, lambda width: [
                Content.styled("this stage has no steps; [ and ] choose another stage", "$foreground-muted")])
            return
        _, stage = next(self._sides())
        title = step_title(found.found[0], stage.started, _tokens_per_step(stage))
        pane.show(title, "←→ one step · shift ten · i leaves", found,
                  lambda width: step_lines(found, self.names(), width))

    def action_inspect(self) -> None:
        """The crosshair, and away with it."""
        self._inspecting, self._step, self._asked = not self._inspecting, None, None
        self.query_one("#run-body").set_class(self._inspecting, "-inspecting")
        self.refresh_bindings()
        if self._inspecting:
            self.query_one("#chart-0", Chart).focus()
            self._show_step()
            self.ask_step()
        self.draw()

    def action_cross(self, by: int) -> None:
        self.ask_step(by)

    def action_less(self) -> None:
        if self._inspecting:
            self.action_inspect()
        elif self._beside:
            self.console_app.compare_with(())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The crosshair's keys mean nothing without a crosshair."""
        return self._inspecting if action == "cross" else True

    # keys

    def action_page(self, by: int) -> None:
        self._page += by
        self._after_resize()

    def action_log_scale(self) -> None:
        names = self._page_names()
        charts = self._charts()
        number = charts.index(self.focused) if self.focused in charts else 0
        if number < len(names):
            self._log_scaled ^= {names[number]}
            self.draw()

    def action_log_scale_all(self) -> None:
        names = set(self.names())
        self._log_scaled = set() if names <= self._log_scaled else names
        self.draw()

    def action_smooth(self) -> None:
        self._smoothing = _after(self._smoothing, SMOOTHINGS)
        self.ask_curves()

    def action_x_axis(self) -> None:
        self._x_axis = _after(self._x_axis, X_AXES)
        if self._x_axis == "tokens" and self._axis("loss") != "tokens":
            self.notify("Tokens per step are not known here: the axis counts steps.", markup=False)
        self.ask_curves()
        if self._inspecting:
            self.ask_step()

    def action_robust(self) -> None:
        self._robust = not self._robust
        self.draw()


def _tokens_per_step(stage: Stage) -> float:
    per_step = stage.config.get("tokens_per_step")
    return float(per_step) if isinstance(per_step, (int, float)) else 0.0


def _after(value: T, choices: Sequence[T]) -> T:
    """The choice after `value`, around."""
    return choices[(choices.index(value) + 1) % len(choices)]

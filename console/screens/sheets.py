"""Questions before something happens: what, how long, where, what it costs, and the command that does the same.

A sheet answers True or False and does nothing itself. Foreign text in it is cleaned and plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from console.plan import Plan, PlanStage
from console.text import clean_line
from console.widgets.numbers import size


class Row(Content):
    """A line that is cut rather than wrapped."""


class Sheet(ModalScreen[bool]):
    """A title, lines, and two buttons; the harmless one is in front unless `yes_first`."""

    BINDINGS: ClassVar = [
        Binding("escape", "answer(False)", "back", id="sheet.back", tooltip="Close this without doing anything"),
        Binding("up,k", "scroll_text(-1)", "up", id="sheet.up", show=False, tooltip="Read further up"),
        Binding("down,j", "scroll_text(1)", "down", id="sheet.down", show=False, tooltip="Read on"),
        Binding("left,right", "app.focus_next", "choose", id="sheet.choose", show=False, tooltip="The other button"),
    ]

    CSS_PATH = "sheets.tcss"
    VERTICAL_BREAKPOINTS = [(0, "-low"), (28, "-high")]  # noqa: RUF012 - the framework declares it so

    def __init__(self, title: str, lines: Sequence[Content], yes: str, no: str = "Cancel", *, yes_first: bool = False,
                 danger: bool = False) -> None:
        super().__init__()
        self._title, self._lines, self._yes, self._no = title, lines, yes, no
        self._yes_first, self._danger = yes_first, danger

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet") as sheet:
            sheet.border_title = Content(self._title)
            sheet.border_subtitle = Content("enter chooses · esc back")
            with VerticalScroll(classes="sheet-text", can_focus=False):
                for line in self._lines:
                    yield Static(line, markup=False, classes="row" if isinstance(line, Row) else "")
            with Horizontal(classes="sheet-buttons"):
                if self._yes:
                    yield Button(Content(self._yes), id="yes", classes="danger" if self._danger else "")
                yield Button(Content(self._no), id="no")

    def on_resize(self, event: events.Resize) -> None:
        """The buttons stay in sight: the text gets what they and the frame leave."""
        frame = 4 if self.has_class("-low") else 7
        self.query_one(".sheet-text").styles.max_height = max(event.size.height - frame, 1)

    def on_mount(self) -> None:
        self.query_one("#yes" if self._yes and self._yes_first else "#no", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_scroll_text(self, by: int) -> None:
        self.query_one(".sheet-text", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_answer(self, value: bool) -> None:
        self.dismiss(value)


def start_sheet(plan: Plan) -> Sheet:
    """Everything a start will do, on one page."""
    minutes = "not measured on such a machine yet" if plan.minutes is None else f"about {max(plan.minutes, 1):.0f} min"
    cost = f"${plan.usd:.2f}" if plan.usd else "$0.00, nothing is rented or downloaded"
    lines = [
        Content(clean_line(plan.summary, 300)),
        Content(""),
        _fact("where", clean_line(plan.target_title, 60)),
        _fact("takes", minutes),
        _fact("costs", cost),
        _fact("disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"),
        _fact("files", clean_line(plan.path, 200)),
        Content(""),
    ]
    lines += [_stage_row(number, stage) for number, stage in enumerate(plan.stages, 1)]
    lines.append(Content(""))
    lines += [Content.styled(f"▲ {clean_line(text, 300)}", "$text-warning") for text in plan.warnings]
    lines += [Content.styled(f"✗ {clean_line(text, 300)}", "$text-error") for text in plan.problems]
    lines += [Content.styled("You may close the console at any time: the work goes on.", "$foreground-muted"),
              Content.assemble(("same as  ", "$foreground-muted"), clean_line(plan.cli, 300))]
    title = f"Start {clean_line(plan.title or plan.recipe, 40)}?"
    if not plan.ok:
        return Sheet(f"{title} Not possible now", lines, "", "Back")
    return Sheet(title, lines, "Start", yes_first=True)


def stop_sheet(run: str, stage: str, rented: bool = False) -> Sheet:
    """Stopping keeps everything that is done; a rented machine is given back after it."""
    after = "Its machine is then copied from, the copies are read back, and it is given back; nothing goes on there."
    lines = [
        _fact("run", clean_line(run, 80)),
        _fact("now", clean_line(stage, 80)),
        Content(""),
        Content("The running step is finished and saved, then the work ends."),
        Content(after if rented else "Nothing is deleted; s goes on from there later."),
        Content(""),
        Content.assemble(("same as  ", "$foreground-muted"), f"llmconsole run stop {clean_line(run, 80)}"),
    ]
    return Sheet("Stop this run?", lines, "Stop after this step", "Keep running", danger=True)


def unfollow_sheet(run: str) -> Sheet:
    """A run that others started cannot be stopped from here; following it can."""
    lines = [
        _fact("run", clean_line(run, 80)),
        Content(""),
        Content("Others started this run: it cannot be stopped from here, and it goes on."),
        Content("Only the following ends. What was read stays; s follows on from there later."),
        Content(""),
        Content.assemble(("same as  ", "$foreground-muted"), f"llmconsole run stop {clean_line(run, 80)}"),
    ]
    return Sheet("Stop following this run?", lines, "Stop following", "Follow on")


def notice_sheet(title: str, text: str, detail: Sequence[str] = ()) -> Sheet:
    """Something to read: cause, consequence, last log lines."""
    lines = [Content(clean_line(text, 2000))]
    if detail:
        lines += [Content(""), *(Content.styled(clean_line(line, 400), "$foreground-muted") for line in detail)]
    return Sheet(title, lines, "", "Back")


def page_sheet(title: str, text: str, rows: Sequence[tuple[str, str]], same: str) -> Sheet:
    """Rows of a name and what it says, the names in one column."""
    width = max((len(name) for name, _ in rows), default=0) + 2
    lines = [Content(clean_line(text, 400)), Content("")]
    lines += [Content.assemble((clean_line(name, 60).ljust(width), "$foreground-muted"), clean_line(value, 400))
              for name, value in rows]
    lines += [Content(""), Content.assemble(("same as  ", "$foreground-muted"), same)]
    return Sheet(title, lines, "", "Back")


def _stage_row(number: int, stage: PlanStage) -> Row:
    line = Content.assemble((f"{number:>3} ", "$foreground-muted"), (f"{clean_line(stage.title, 15):<15} ", "bold"),
                            clean_line(stage.summary, 120))
    return Row(line.plain, list(line.spans))


def _fact(label: str, value: str) -> Content:
    return Content.assemble((label.ljust(9), "$foreground-muted"), value)

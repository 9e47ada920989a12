"""Screen 6: what happened, newest last: alerts, stages, checkpoints, and every command that was run for you."""

from __future__ import annotations

import shlex
import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from console.glance import Glance
from console.runlog.queries import RunEvent
from console.screens.base import ConsoleScreen
from console.screens.sheets import notice_sheet
from console.text import clean_line
from console.widgets.numbers import grouped, size, span
from console.widgets.pane import Titled
from console.widgets.states import LEVEL, STAGE


class EventList(Titled, OptionList):
    """One line per event."""

    BINDINGS: ClassVar = [
        Binding("j", "cursor_down", "down", id="activity.down", show=False, tooltip="Next line"),
        Binding("k", "cursor_up", "up", id="activity.up", show=False, tooltip="Line above"),
        Binding("g", "first", "first", id="activity.first", show=False, tooltip="First line"),
        Binding("G", "last", "last", id="activity.last", show=False, tooltip="Newest line"),
    ]


class ActivityScreen(ConsoleScreen):
    MODE = "activity"
    CSS_PATH = "activity.tcss"
    HELP = "Everything that happened in this run, and each command run for you ($). enter shows a line in full."
    BINDINGS: ClassVar = [
        Binding("enter", "open", "details", id="activity.open", tooltip="Show the marked line in full"),
        Binding("r", "app.choose_run", "runs", id="activity.choose", tooltip="Show another run"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._events: tuple[RunEvent, ...] = ()
        self._shown: tuple[object, int] = (None, 0)

    def body(self) -> ComposeResult:
        listing = EventList(id="events", markup=False, compact=True)
        listing.set_title("activity")
        yield listing

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#events").focus()

    def show(self, glance: Glance) -> None:
        listing = self.query_one("#events", EventList)
        if glance.detail is None:
            if not listing.options:
                told = Content.styled("nothing happened yet; press 1 and enter to start", "$foreground-muted")
                listing.add_option(Option(told, disabled=True))
            return
        self._events = glance.detail.events
        last = self._events[-1].at if self._events else 0
        if (glance.detail.run.id, last) == self._shown:
            return
        at_end = listing.highlighted is None or listing.highlighted >= len(listing.options) - 1
        kept = listing.highlighted
        new_run = self._shown[0] != glance.detail.run.id
        self._shown = (glance.detail.run.id, last)
        listing.clear_options()
        listing.add_options([Option(event_line(event), id=str(event.at)) for event in self._events])
        listing.highlighted = len(self._events) - 1 if (at_end or new_run) and self._events else kept
        money, here = glance.rented.money, glance.rented.here
        spent = f"this run ${here.spent(time.time()):.2f} · " if here else ""
        listing.set_title("activity", f"{clean_line(glance.detail.run.id, 40)} · {spent}rented in all "
                          f"${money.spent:.2f} · {grouped(len(self._events))} newest")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        found = next((e for e in self._events if str(e.at) == event.option.id), None)
        if found is not None:
            words = [f"{clean_line(str(key), 40)}: {clean_line(str(value), 1000)}" for key, value in found.data.items()]
            self.app.push_screen(notice_sheet("Event", event_text(found), words))

    def action_open(self) -> None:
        self.query_one("#events", EventList).action_select()


def event_line(event: RunEvent) -> Content:
    """Time, sign and sentence."""
    glyph, colour = _sign(event)
    at = time.strftime("%H:%M:%S", time.localtime(event.t))
    return Content.assemble((f"{at}  ", "$foreground-muted"), (f"{glyph} ", colour), clean_line(event_text(event), 400))


def _sign(event: RunEvent) -> tuple[str, str]:
    if event.kind == "alert":
        return LEVEL.get(str(event.data.get("level")), LEVEL["info"])
    if event.kind in ("stage", "run"):
        return STAGE.get(str(event.data.get("state")), STAGE["started"])
    signs = {"checkpoint": ("▪", "$text-accent"), "command": ("$", "$text-primary"), "eval": ("=", "$text-primary"),
             "rental": ("⌂", "$text-warning")}
    return signs.get(event.kind, ("·", "$foreground-muted"))


def event_text(event: RunEvent) -> str:
    """One sentence of foreign text, to be cleaned by whoever shows it."""
    data, stage = event.data, event.stage or ""
    if event.kind == "alert":
        return " · ".join(str(data[key]) for key in ("text", "next") if data.get(key))
    if event.kind == "stage":
        took = f" after {span(data['seconds'])}" if isinstance(data.get("seconds"), (int, float)) else ""
        argv = data.get("argv")
        command = f"   $ {shlex.join(map(str, argv))}" if isinstance(argv, list) else ""
        return f"{stage} {data.get('state', '')}{took}{command}"
    if event.kind == "run":
        return f"run {data.get('state', '')} {data.get('reason') or ''}".strip()
    if event.kind == "checkpoint":
        amount = data.get("bytes")
        known = amount and isinstance(amount, (int, float))
        return f"{stage} saved step {event.step}" + (f", {size(amount)}" if known else "")
    if event.kind == "eval":
        results = ", ".join(f"{key} {value:.4g}" for key, value in data.items() if isinstance(value, (int, float)))
        return f"{stage} step {event.step}: {results}" if event.step is not None else f"{stage}: {results}"
    if event.kind == "sample":
        return f"{stage} wrote: {data.get('prompt', '')}{data.get('text', '')}"
    if event.kind == "rental":
        return f"machine {data.get('phase', '')}" + (f": {data['text']}" if data.get("text") else "")
    if event.kind == "command":
        outcome = data.get("outcome") or "under way"
        return f"{data.get('action', '')} attempt {event.attempt}: {outcome}   $ {data.get('cli', '')}"
    return f"{stage} {event.kind} " + ", ".join(f"{key}={value}" for key, value in list(data.items())[:6])

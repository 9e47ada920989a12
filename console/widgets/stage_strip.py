"""The stages of a run in one row: which are done, which is running and how far, what comes; shrinks with the room."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from console.runlog.queries import Stage
from console.text import clean_line
from console.widgets.numbers import bar, clock, grouped
from console.widgets.states import STAGE

# Ever shorter: are finished stages named, how many waiting ones are, how wide is the bar
_VERSIONS = ((True, 99, 10), (False, 99, 10), *((False, named, 8) for named in range(6, -1, -1)), (False, 0, 0))


class StageStrip(Widget):
    """Give it stages with `show`; `shown` is the id of the stage that the screen below is about."""

    DEFAULT_CSS = """
    StageStrip { height: 1; color: $foreground; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._stages: tuple[Stage, ...] = ()
        self._shown: str | None = None

    def show(self, stages: Sequence[Stage], shown: str | None) -> None:
        if (tuple(stages), shown) != (self._stages, self._shown):
            self._stages, self._shown = tuple(stages), shown
            self.refresh()

    def render(self) -> Content:
        return strip(self._stages, self._shown, self.size.width)


def strip(stages: Sequence[Stage], shown: str | None, width: int) -> Content:
    """The first of several ever shorter versions that fits `width`."""
    if not stages:
        return Content.styled(" no run yet", "$foreground-muted")
    current = _current(stages)
    right = _progress(current)
    for done_named, waiting_named, bar_width in _VERSIONS:
        left = _left(stages, current, shown, done_named, waiting_named, bar_width)
        fill = width - left.cell_length - right.cell_length - 1
        if fill >= 1:
            return Content.assemble(left, " " * fill, right, " ")
    return left.truncate(max(width, 0), ellipsis=True)


def _current(stages: Sequence[Stage]) -> Stage | None:
    """The stage that runs or broke, else none."""
    for stage in stages:
        if stage.state in ("started", "failed", "stopped"):
            return stage
    return None


def _left(stages: Sequence[Stage], current: Stage | None, shown: str | None, done_named: bool, waiting_named: int,
          bar_width: int) -> Content:
    parts: list[Content | tuple[str, str] | str] = [" "]
    waiting = 0
    for stage in stages:
        glyph, colour = STAGE.get(stage.state, STAGE["waiting"])
        here = stage is current
        waiting += stage.state == "waiting"
        named = here or stage.id == shown or (waiting <= waiting_named if stage.state == "waiting" else done_named)
        parts.append((glyph, colour))
        if named:
            style = "bold" if here else ("$foreground-muted" if stage.state == "waiting" else "")
            style += " underline" if stage.id == shown and not here else ""
            parts.append((f" {clean_line(stage.title, 24)}", style))
        if here and bar_width and stage.fraction is not None:
            parts += [" ", (bar(stage.fraction, bar_width), f"{colour} on $panel-lighten-1"), f" {stage.fraction:.0%}"]
        parts.append("  " if named else " ")
    return Content.assemble(*parts)


def _progress(stage: Stage | None) -> Content:
    if stage is None or not stage.total or stage.done is None:
        return Content("")
    words = f"{clean_line(stage.unit or '', 12)} {grouped(stage.done)}/{grouped(stage.total)}".strip()
    if stage.state == "started" and stage.eta_s is not None:
        words += f" · ETA {clock(stage.eta_s)}"
    return Content.styled(words, "$foreground-muted")

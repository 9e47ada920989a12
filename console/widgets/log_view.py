"""A log on screen: follows at its end, stays put when somebody reads further up, filters and searches while it grows.

Lines come from `console.log_file` on demand and every row is plain text. When the view is not at the end nothing that
arrives moves what is being read. It does not know which log it shows.
"""

from __future__ import annotations

import time
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.log_file import ByteSource, LogFile
from console.widgets.log_search import LogSearch
from console.widgets.log_text import parts, tone_of, wrapped
from console.widgets.numbers import grouped, span
from console.widgets.pane import Titled


class LogView(Titled, ScrollView, can_focus=True):
    """Give it a source with `open`, then call `poll` a few times a second."""

    BINDINGS: ClassVar = [
        Binding("f,end,G", "follow", "follow", id="log.follow", key_display="f",
                tooltip="Jump to the newest line and stay there"),
        Binding("home,g", "top", "top", id="log.top", show=False, key_display="g",
                tooltip="Jump to the first line"),
        Binding("w", "wrap", "wrap", id="log.wrap", tooltip="Break long lines, or scroll sideways"),
        Binding("exclamation_mark", "invert", "invert", id="log.invert", show=False, key_display="!",
                tooltip="Show the lines that do not match the filter"),
        Binding("n", "search(1)", "next match", id="log.next", show=False, tooltip="Next line that matches"),
        Binding("N", "search(-1)", "previous match", id="log.previous", show=False,
                tooltip="Previous line that matches"),
        Binding("j", "scroll_down", show=False, id="log.down"),
        Binding("k", "scroll_up", show=False, id="log.up"),
        Binding("h", "scroll_left", show=False, id="log.left"),
        Binding("l", "scroll_right", show=False, id="log.right"),
    ]
    COMPONENT_CLASSES: ClassVar = {"log--error", "log--warning", "log--accent", "log--match", "log--current",
                                   "log--empty"}
    DEFAULT_CSS = """
    LogView {
        border: round $foreground 22%; border-title-color: $foreground; border-title-style: none;
        scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
        & .log--error { color: $text-error; }
        & .log--warning { color: $text-warning; }
        & .log--accent { color: $text-accent; }
        & .log--match { background: $warning 40%; color: $foreground; text-style: bold; }
        & .log--current { background: $primary 30%; }
        & .log--empty { color: $foreground-muted; }
        &:focus { border: round $accent; }
    }
    """

    def __init__(self, *, id: str | None = None, empty: str = "nothing printed yet") -> None:
        super().__init__(id=id)
        self._log: LogFile | None = None
        self._label, self._empty = "log", empty
        self.following, self.wrapping = True, False
        self.search = LogSearch()
        self._generation = 0
        self._seen = 0  # lines there were when following ended
        self._current = -1
        self._widest = 0
        self._grew = time.monotonic()
        self._rows: tuple[object, list[tuple[int, int, str]]] = (None, [])
        self._moving = False
        self._looks: dict[str, Style] = {}

    def open(self, name: str, source: ByteSource | None) -> None:
        """Show another log, from its end."""
        self._label, self._log = name, LogFile(source) if source else None
        self.search.forget()
        self._generation, self._widest, self._current = 0, 0, -1
        self.following = True
        self.poll()
        self._settle()

    def poll(self) -> None:
        """Take in what was appended."""
        if self._log is not None and self._log.refresh():
            self._grew = time.monotonic()
            if self._log.generation != self._generation:
                self._generation = self._log.generation
                self.search.forget()
            self._scan()
            self._settle()
        self._retitle()

    @property
    def total(self) -> int:
        return len(self._log) if self._log else 0

    @property
    def visible_lines(self) -> int:
        return len(self.search.lines) if self.search.hiding else self.total

    @property
    def filtering(self) -> bool:
        """Whether lines that do not match are hidden."""
        return self.search.hiding

    def search_for(self, text: str, *, hide: bool) -> None:
        """Mark the lines that match; `hide` leaves the others out. An empty text shows everything again."""
        here = self.search.line_at(self._top())
        self.search.look_for(text, hide=hide)
        self._scan()
        self._keep_in_place(here)

    def show_all(self) -> None:
        """Stop hiding lines but keep the matches marked, and the reader where they are."""
        here = self.search.line_at(self._top())
        self.search.show_all()
        self._keep_in_place(here)

    def action_follow(self) -> None:
        self.following = True
        self._settle()

    def action_top(self) -> None:
        self.following = False
        self._seen = self.visible_lines
        self._move_to(0)
        self._retitle()

    def action_wrap(self) -> None:
        here = self.search.line_at(self._top())
        self.wrapping = not self.wrapping
        self.scroll_to(x=0, animate=False)
        self._keep_in_place(here)

    def action_invert(self) -> None:
        if self.search.invert():
            self._scan()
            self._settle()

    def action_search(self, direction: int) -> None:
        """Put the next (1) or previous (-1) matching line in sight and mark it."""
        start = self._current if self._current >= 0 else self.search.line_at(self._top()) - 1
        found = self.search.neighbour(start, direction)
        if found is None:
            return
        self._current, self.following = found, False
        position = self.search.position(found)
        self._move_to(max(position - self._room.height // 3, 0))
        self._settle()

    def _scan(self) -> None:
        """Find matching lines for a moment, and come back soon if there is more to look at."""
        if self._log is not None:
            self.search.scan(self._log.line, len(self._log))
            if self.search.behind(len(self._log)):
                self.set_timer(0.03, self._go_on_scanning, name="scan")

    def _go_on_scanning(self) -> None:
        if self._log is not None and self.search.behind(len(self._log)):
            self._scan()
            self._settle()

    @property
    def _room(self) -> Size:
        """What the lines have: the inside without the scroll bar."""
        return self.scrollable_content_region.size

    def _top(self) -> int:
        return round(self.scroll_y)

    def _keep_in_place(self, line: int) -> None:
        self._settle()
        if not self.following:
            self._move_to(self.search.position(line))
            self._settle()

    def _tail_top(self) -> int:
        """The first line of the last screenful."""
        height, count = self._room.height, self.visible_lines
        if not self.wrapping:
            return max(count - height, 0)
        rows, top = 0, count
        while top > 0 and rows < height:
            top -= 1
            rows += len(self._wrapped(self.search.line_at(top)))
        return top

    def _settle(self) -> None:
        """Bring the scroll area in step with the lines, and go to the end when following."""
        self._rows = (None, [])
        top = self._tail_top()
        self._moving = True
        self.virtual_size = Size(self._room.width if self.wrapping else max(self._widest, 1), top + self._room.height)
        self._moving = False
        if self.following:
            self._move_to(top)
            self._seen = self.visible_lines
        self.refresh()
        self._retitle()

    def _move_to(self, position: int) -> None:
        self._moving = True
        self.scroll_to(y=position, animate=False, force=True, immediate=True)
        self._moving = False

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._moving and round(old_value) != round(new_value):
            follows = new_value >= self.max_scroll_y
            if self.following and not follows:
                self._seen = self.visible_lines
            self.following = follows
            self._retitle()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._settle()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._rows = (None, [])
        self._looks.clear()

    def _look(self, tone: str) -> Style:
        """The style of one kind of text; found once until the theme or the focus changes."""
        if tone not in self._looks:
            base = self.rich_style
            self._looks[tone] = base + self.get_component_rich_style(f"log--{tone}") if tone else base
        return self._looks[tone]

    def _retitle(self) -> None:
        self.set_title(self._label, self.status(), "$foreground-muted" if self.following else "bold $text-warning")

    def status(self) -> str:
        """The badge: how it follows and how much there is."""
        words = []
        if self.following:
            quiet = time.monotonic() - self._grew
            words.append(f"FOLLOW, quiet for {span(quiet)}" if quiet > 60 and self.total else "FOLLOW")
        else:
            new = self.visible_lines - self._seen
            words.append(f"PINNED · {grouped(new)} new below, End follows" if new > 0 else "PINNED, End follows")
        if self.filtering:
            hidden = grouped(self.total - self.visible_lines)
            words.append(f"{grouped(self.visible_lines)} of {grouped(self.total)} lines · {hidden} hidden")
        else:
            words.append(f"{grouped(self.total)} lines")
            if self.search.pattern is not None:
                words.append(f"{grouped(len(self.search.lines))} match")
        return " · ".join(words)

    def render_line(self, y: int) -> Strip:
        width = self._room.width
        base = self._look("")
        if not self.visible_lines:
            return self._blank(y, width, base)
        rows = self._visible_rows()
        if y >= len(rows):
            return Strip.blank(width, base)
        line, _, text = rows[y]
        strip = Strip(self._segments(line, text, base))
        if self.wrapping:
            return strip.adjust_cell_length(width, base)
        left = round(self.scroll_x)
        shown = strip.crop(left, left + width).adjust_cell_length(width, base)
        if strip.cell_length <= left + width:
            return shown
        return Strip([*shown.crop(0, width - 1), Segment("›", self._look("empty"))])

    def _blank(self, y: int, width: int, base: Style) -> Strip:
        if y != self._room.height // 2:
            return Strip.blank(width, base)
        text = "no line matches" if self.filtering and self.total else self._empty
        style = self._look("empty")
        return Strip([Segment(set_cell_size(text.center(width), width), style)])

    def _visible_rows(self) -> list[tuple[int, int, str]]:
        """(line, row within it, text) for each row in sight; computed once per scroll position."""
        key = (self._top(), self._room, self.visible_lines, self.wrapping)
        if self._rows[0] != key:
            self._rows = (key, self._wrapped_rows() if self.wrapping else self._plain_rows())
            self._grow_sideways()
        return self._rows[1]

    def _plain_rows(self) -> list[tuple[int, int, str]]:
        top = self._top()
        lines = [self.search.line_at(i) for i in range(top, min(top + self._room.height, self.visible_lines))]
        return [(line, 0, self._text(line)) for line in lines]

    def _wrapped_rows(self) -> list[tuple[int, int, str]]:
        rows: list[tuple[int, int, str]] = []
        height, top = self._room.height, self._top()
        at_end = top >= self._tail_top()
        for position in range(top, self.visible_lines):
            line = self.search.line_at(position)
            rows.extend((line, i, text) for i, text in enumerate(self._wrapped(line)))
            if len(rows) >= height and not at_end:
                break
        return rows[-height:] if at_end else rows[:height]

    def _grow_sideways(self) -> None:
        widest = max((cell_len(text) for _, _, text in self._rows[1]), default=0)
        if widest > self._widest and not self.wrapping:
            self._widest = widest
            self.call_after_refresh(self._settle)

    def _text(self, line: int) -> str:
        assert self._log is not None
        return self._log.line(line) if line < len(self._log) else ""

    def _wrapped(self, line: int) -> list[str]:
        return wrapped(self._text(line), self._room.width)

    def _segments(self, line: int, text: str, base: Style) -> list[Segment]:
        tone = tone_of(text)
        style = self._look(tone) if tone else base
        if line == self._current:
            style += self._look("current")
        pattern = None if self.search.inverse else self.search.pattern
        return [Segment(piece, style + self._look("match") if matches else style)
                for piece, matches in parts(text, pattern)]

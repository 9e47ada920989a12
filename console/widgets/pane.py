"""A framed pane: name on the left of its top border, state on the right, both plain text, redrawn at every width."""

from __future__ import annotations

from typing import cast

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.widget import Widget

MUTED = "$foreground-muted"


def title_line(left: Content | str, right: str, width: int, style: str = MUTED) -> Content:
    """`left ──── right` in `width` cells; when both do not fit, `right` loses its last words (between ' · ') first."""
    left = left if isinstance(left, Content) else Content(left)
    words = right.split(" · ")
    while words and left.cell_length + cell_len(" · ".join(words)) + 3 > width:
        words.pop()
    if not words or not right:
        return left.truncate(max(width, 0), ellipsis=True)
    right = " · ".join(words)
    fill = width - left.cell_length - cell_len(right) - 2
    return Content.assemble(left, (f" {'─' * fill} ", "not bold $foreground-disabled"), (right, style))


class Titled:
    """Mixin for widgets with a frame: call `set_title` whenever what it says changes."""

    _titles: tuple[Content | str, str, str] = ("", "", MUTED)

    def set_title(self, left: Content | str, right: str = "", style: str = MUTED) -> None:
        if (left, right, style) != self._titles:
            self._titles = (left, right, style)
            self._frame_title()

    def on_resize(self, event: events.Resize) -> None:
        self._frame_title()
        widget = cast(Widget, self)
        widget.call_after_refresh(widget.refresh)  # a title set while the layout changes may not reach the terminal

    def _frame_title(self) -> None:
        widget = cast(Widget, self)
        width = widget.outer_size.width - 6  # corners and the blanks that the frame keeps around a title
        left, right, style = self._titles
        widget.border_title = title_line(left, right, width, style) if width > 0 and (str(left) or right) else None


class Pane(Titled, Widget):
    """Base of the panes that draw themselves."""

    DEFAULT_CSS = """
    Pane {
        border: round $foreground 22%;
        border-title-color: $foreground;
        border-title-style: none;
        &:focus, &:focus-within { border: round $accent; }
    }
    """

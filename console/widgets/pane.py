"""A framed pane: name on the left of its top border, state on the right, both plain text, redrawn at every width."""

from __future__ import annotations

from typing import cast

from textual import events
from textual.content import Content
from textual.widget import Widget


def title_line(left: Content | str, right: Content | str, width: int) -> Content:
    """`left ──── right` in `width` cells; `right` goes first when both do not fit."""
    left, right = _plain(left), _plain(right)
    fill = width - left.cell_length - right.cell_length - 2
    if not right.plain or fill < 1:
        return left.truncate(max(width, 0), ellipsis=True)
    return Content.assemble(left, (" " + "─" * fill + " ", "not bold dim"), right)


def _plain(text: Content | str) -> Content:
    return text if isinstance(text, Content) else Content(text)


class Titled:
    """Mixin for widgets with a frame: call `set_title` whenever what it says changes."""

    _titles: tuple[Content | str, Content | str] = ("", "")

    def set_title(self, left: Content | str, right: Content | str = "") -> None:
        if (left, right) != self._titles:
            self._titles = (left, right)
            self._frame_title()

    def on_resize(self, event: events.Resize) -> None:
        self._frame_title()

    def _frame_title(self) -> None:
        widget = cast(Widget, self)
        width = widget.outer_size.width - 6  # corners and the blanks that the frame keeps around a title
        widget.border_title = title_line(*self._titles, width) if width > 0 and any(map(str, self._titles)) else None


class Pane(Titled, Widget):
    """Base of the panes that draw themselves."""

    DEFAULT_CSS = """
    Pane {
        border: round $panel-lighten-2;
        border-title-color: $foreground;
        border-title-style: none;
        &:focus, &:focus-within { border: round $accent; }
    }
    """

"""A framed pane of finished lines: machine facts, checkpoints, report card. The lines are made for the width it has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from textual.content import Content
from textual.geometry import Size

from console.widgets.pane import Pane

Lines = Callable[[int], Sequence[Content]]


class TextPane(Pane):
    """`show` takes a function from width to lines, and a key that says whether anything has changed."""

    DEFAULT_CSS = """
    TextPane { padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Lines = lambda width: ()
        self._key: Hashable = None

    def show(self, title: str, right: str, key: Hashable, lines: Lines) -> None:
        if (title, right, key) != self._key:
            self._key, self._lines = (title, right, key), lines
            self.set_title(title, right)
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """For `height: auto`: as many rows as there are lines."""
        return max(len(self._lines(width)), 1)

    def render(self) -> Content:
        width, height = self.size
        if width < 1 or height < 1:
            return Content("")
        lines = [line.truncate(width, ellipsis=True) for line in self._lines(width)]
        if len(lines) > height > 1:
            more = f"… {len(lines) - height + 1} more"[:width]
            lines = [*lines[: height - 1], Content.styled(more, "$foreground-muted")]
        return Content("\n").join(lines[:height])


def pair(label: str, value: Content | str, width: int, label_width: int = 11) -> Content:
    """`label      value`, the label muted."""
    line = Content.assemble((label.ljust(label_width), "$foreground-muted"), value)
    return line.truncate(max(width, 0), ellipsis=True)

"""What all six screens share: row 1, the read-only banner, the key row, and one status line when there is no room.

A screen gets the newest Glance by `show` and draws it; it never asks a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from console.widgets.key_bar import KeyBar
from console.widgets.top_bar import TopBar

if TYPE_CHECKING:
    from console.app import Console
    from console.glance import Glance


class ConsoleScreen(Screen[None]):
    """Subclasses say `MODE`, `HELP` (a sentence on what the screen is for), `body()` and `show()`."""

    MODE: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-normal"), (140, "-wide")]  # noqa: RUF012 - the framework declares them so
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-short"), (24, "-medium"), (36, "-tall")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        yield TopBar(self.MODE)
        yield Static(id="banner", markup=False)
        with Container(id="body"):
            yield from self.body()
        yield Static(id="status", markup=False)
        yield KeyBar()

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def show(self, glance: Glance) -> None:
        raise NotImplementedError

    @property
    def console_app(self) -> Console:
        from console.app import Console

        assert isinstance(self.app, Console)
        return self.app

    def on_mount(self) -> None:
        self._refresh()

    def on_screen_resume(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        if (glance := self.console_app.glance) is not None:
            self.show(glance)
        self.tick()

    def tick(self) -> None:
        """Once a second while this screen is in front: the clock, the banner, the status line."""
        app = self.console_app
        self.query_one(TopBar).show(app.top_facts())
        banner = self.query_one("#banner", Static)
        text = app.banner()
        banner.display = bool(text)
        banner.update(Content(text))
        self.query_one("#status", Static).update(Content(app.status_line(self.size.width, self.size.height)))

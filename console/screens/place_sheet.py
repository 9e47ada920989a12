"""Asks where copies go: the place can be typed at once, and enter twice takes it as it is."""

from __future__ import annotations

from textual.widgets import Input

from console.screens.money_sheets import TypedSheet


class PlaceSheet(TypedSheet):
    """Nothing here is dangerous, so the cursor starts where one types."""

    def on_mount(self) -> None:
        self.call_after_refresh(lambda: self.query_one(Input).focus())

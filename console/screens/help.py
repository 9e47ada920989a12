"""Help, made from the bindings of the screen it was called from: no text here can drift from a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

TIPS = (
    "Drag with shift held to select text with the terminal's own mouse.",
    "Leaving never stops work; open llmconsole again and it is attached again.",
)


class HelpSheet(ModalScreen[None]):
    """One page: what the screen is for, then every key that works there."""

    CSS_PATH = "sheets.tcss"

    BINDINGS: ClassVar = [Binding("escape,question_mark,f1,q", "leave", "back", id="help.back", key_display="esc",
                                  tooltip="Close help")]

    def __init__(self, about: str, rows: Sequence[tuple[str, str]], version: str) -> None:
        super().__init__()
        self._about, self._rows, self._version = about, rows, version

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet help") as sheet:
            sheet.border_title = Content("Help")
            sheet.border_subtitle = Content(f"llmconsole {self._version} · esc back")
            with VerticalScroll():
                yield Static(self._text(), markup=False)

    def _text(self) -> Content:
        parts: list[Content] = [Content(self._about), Content("")] if self._about else []
        parts += [Content.assemble((f"{key:>10}  ", "bold $text-accent"), what) for key, what in self._rows]
        parts += [Content(""), *(Content.styled(tip, "$foreground-muted") for tip in TIPS)]
        return Content("\n").join(parts)

    def action_leave(self) -> None:
        self.dismiss()


def help_rows(active: Sequence[ActiveBinding], display: object) -> list[tuple[str, str]]:
    """(key, what it does) for each action once, several keys of one action joined."""
    keys: dict[str, list[str]] = {}
    what: dict[str, str] = {}
    for entry in active:
        binding = entry.binding
        text = binding.tooltip or binding.description
        if not text or not binding.id or not entry.enabled:
            continue
        key = display(binding)  # type: ignore[operator]
        if key not in keys.setdefault(binding.id, []):
            keys[binding.id].append(key)
        what[binding.id] = text
    return [(" ".join(keys[i]), what[i]) for i in keys]

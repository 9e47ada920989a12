"""The last row: the most useful keys of where the focus is, read from the bindings and from nowhere else."""

from __future__ import annotations

import unicodedata

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.keys import KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys
from textual.widget import Widget

MOST = 8
_NAMED = {key.value for key in Keys}


def is_character(key: str) -> bool:
    """Whether this key, as the framework names it, types a character: `a`, `question_mark`; `left` types none."""
    if len(key) == 1 or key == "space":
        return True
    whole = REPLACED_KEYS.get(key, key)
    try:
        unicodedata.lookup(KEY_TO_UNICODE_NAME.get(whole, whole.replace("_", " ")).upper())
    except KeyError:
        return False
    return key not in _NAMED


class KeyBar(Widget):
    """At most eight keys on the left, help and palette on the right; every one can be clicked."""

    DEFAULT_CSS = """
    KeyBar { height: 1; dock: bottom; background: $panel; color: $foreground-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[tuple[int, int, str]] = []

    def compose(self) -> ComposeResult:
        return ()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda screen: self.refresh())

    def render(self) -> Content:
        focused = self.screen.focused
        typing = focused is not None and focused.check_consume_key("a", "a")
        always = [("app.help_screen", self._key("app.help", typing), "help"),
                  ("app.command_palette", self._key("app.palette", typing), "palette")]
        right = self._keys(always)
        width = self.size.width
        room = width - right.cell_length - 2
        shown: list[tuple[str, str, str]] = []
        used = 1
        for action, key, what in self._available(typing):
            used += len(key) + len(what) + 3
            if used > room or len(shown) >= MOST:
                break
            shown.append((action, key, what))
        left = self._keys(shown)
        self._spans = []
        self._remember(shown, 1)
        start = width - right.cell_length
        self._remember(always, start + 1)
        fill = max(start - left.cell_length, 0)
        return Content.assemble(left, " " * fill, right).truncate(max(width, 0))

    def _key(self, binding_id: str, typing: bool) -> str:
        """The key of a binding as it is now; while somebody types, one that is no letter."""
        found = [active.binding for active in self.screen.active_bindings.values() if active.binding.id == binding_id]
        usable = [binding for binding in found if not (typing and is_character(binding.key))]
        return self.app.get_key_display((usable or found)[0]) if found else ""

    def _available(self, typing: bool) -> list[tuple[str, str, str]]:
        """What can be pressed now; while somebody types, letters are text."""
        found = []
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.description and not (typing and is_character(binding.key)):
                found.append((binding.action, self.app.get_key_display(binding), binding.description))
        return list(dict.fromkeys(found))

    def _keys(self, keys: list[tuple[str, str, str]]) -> Content:
        parts: list[tuple[str, str]] = [(" ", "")]
        for _, key, what in keys:
            parts += [(key, "bold $foreground"), (f" {what}  ", "$foreground-muted")]
        return Content.assemble(*parts)

    def _remember(self, keys: list[tuple[str, str, str]], at: int) -> None:
        for action, key, what in keys:
            end = at + len(key) + len(what) + 1
            self._spans.append((at, end, action))
            at = end + 2

    async def on_click(self, event: events.Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                await self.app.run_action(action, self.screen.focused or self.screen)

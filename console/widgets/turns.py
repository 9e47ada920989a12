"""The turns of a chat: questions, answers that grow while they are written, tool use, trouble with the way out."""

from __future__ import annotations

from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from console.chat.conversation import Turn
from console.widgets.marked import marked
from console.widgets.numbers import short

_FINISH = {"length": "cut at /max", "cancelled": "stopped", "context": "context full"}


class TurnView(Static):
    """One turn as plain text; `update_turn` draws it again."""

    DEFAULT_CSS = """
    TurnView { padding: 0 1; margin-bottom: 1; height: auto; }
    """

    def __init__(self, turn: Turn, name: str) -> None:
        super().__init__(markup=False, classes=turn.role)
        self.turn = turn
        self._speaker = name
        self._drawn: Content | None = None

    def on_mount(self) -> None:
        self.update_turn()

    def update_turn(self) -> None:
        content = turn_content(self.turn, self._speaker)
        if content != self._drawn:
            self._drawn = content
            self.update(content)


def turn_content(turn: Turn, name: str) -> Content:
    """A head line, then the parts."""
    if turn.role == "user":
        return Content.assemble(("you\n", "bold $text-primary"), turn.text)
    if turn.role == "note":
        return Content.styled(turn.text, "$foreground-muted")
    pieces: list[Content | tuple[str, str] | str] = [(name, "bold $text-accent")]
    pieces += [(_head(turn), "$foreground-muted"), "\n"]
    for part in turn.parts:
        if part.kind == "text":
            pieces.append(marked(part.text))
        elif part.kind == "input":
            pieces.append((f"\n  ┌ calculator\n  │ {_indented(part.text)}\n", "$text-secondary"))
        else:
            pieces.append((f"  └ {_indented(part.text)}\n", "bold $text-secondary"))
    if not turn.complete:
        pieces.append(("▍", "$text-accent"))
    if turn.trouble is not None:
        way_out = f"  {turn.trouble.next}" if turn.trouble.next else ""
        pieces += [("\n" if turn.parts else ""), (f"✗ {turn.trouble.text}", "$text-error"), (way_out, "bold")]
    elif turn.complete and not turn.parts:
        pieces.append(("(said nothing)", "$foreground-muted"))
    return Content.assemble(*pieces)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n  │ ")


def _head(turn: Turn) -> str:
    """The short version of the statistics."""
    stats = turn.figures
    words = []
    if isinstance(stats.get("ttft_ms"), (int, float)):
        words.append(f"{stats['ttft_ms']:.0f} ms")
    if isinstance(stats.get("tok_per_s"), (int, float)):
        words.append(f"{short(stats['tok_per_s'])} tok/s")
    if isinstance(stats.get("completion_tokens"), int):
        words.append(f"{stats['completion_tokens']} tok")
    if turn.finish in _FINISH:
        words.append(_FINISH[turn.finish])
    if stats.get("dropped_turns"):
        words.append(f"without the {stats['dropped_turns']} oldest turns")
    return f"  {' · '.join(words)}" if words else ""


class Transcript(VerticalScroll, can_focus=True):
    """All turns; follows at the end and stays put when somebody reads further up."""

    DEFAULT_CSS = """
    Transcript { scrollbar-size-vertical: 1; }
    """

    following: reactive[bool] = reactive(True, init=False)

    class Moved(Message):
        """Following began or ended."""

    def watch_following(self, before: bool, now: bool) -> None:
        if before != now:
            self.post_message(self.Moved())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value >= self.max_scroll_y - 1:
            self.following = True
        elif new_value < old_value:
            self.following = False

    def on_resize(self) -> None:
        self.keep_up()

    def keep_up(self) -> None:
        """Go to the end once what was added has its place, unless somebody reads further up."""
        if self.following:
            self.call_after_refresh(self._to_end)

    def _to_end(self) -> None:
        if self.following:
            self.scroll_end(animate=False)

"""Row 1 of every screen: the program, the six screens, the target, how the run is, what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.widget import Widget

from console.rental.money import NOTHING_RENTED, Money
from console.widgets.numbers import clock
from console.widgets.rented import meter
from console.widgets.states import run_state

SCREENS = (("home", "Home"), ("run", "Run"), ("logs", "Logs"), ("checkpoints", "Checkpoints"), ("chat", "Chat"),
           ("activity", "Activity"))


@dataclass(frozen=True)
class TopFacts:
    """What row 1 says. `word` is a run's state, or idle."""

    target: str = "this machine"
    word: str = "idle"
    elapsed: float | None = None
    money: Money = NOTHING_RENTED
    read_only: bool = False
    demo: bool = False


class TopBar(Widget):
    """Shows TopFacts; a click on a screen's name goes there."""

    DEFAULT_CSS = """
    TopBar { height: 1; dock: top; background: $panel; color: $foreground; }
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode
        self._facts = TopFacts()
        self._spans: list[tuple[int, int, str]] = []

    def show(self, facts: TopFacts) -> None:
        if facts != self._facts:
            self._facts = facts
            self.refresh()

    def render(self) -> Content:
        width = self.size.width
        right = self._right(wide=width >= 100)
        left = self._left(names=width - right.cell_length >= 68)
        fill = width - left.cell_length - right.cell_length
        if fill < 1:
            return left.truncate(width)
        return Content.assemble(left, " " * fill, right)

    def _left(self, *, names: bool) -> Content:
        parts = [Content.styled(" llmconsole ", "bold $text-accent")]
        self._spans, at = [], 12
        for number, (mode, title) in enumerate(SCREENS, 1):
            here = mode == self._mode
            text = f" {number} {title} " if names or here else f" {number} "
            parts.append(Content.styled(text, "bold $background on $accent" if here else "$foreground-muted"))
            self._spans.append((at, at + len(text), mode))
            at += len(text)
        return Content.assemble(*parts)

    def _right(self, *, wide: bool) -> Content:
        facts = self._facts
        parts: list[Content | str] = []
        if facts.demo:
            parts += [Content.styled(" DEMO ", "bold $background on $warning"), "  "]
        if facts.read_only:
            parts += [Content.styled("READ-ONLY", "bold $text-warning"), "  "]
        if wide:
            parts += [facts.target, "  "]
        parts.append(run_state(facts.word))
        if facts.elapsed is not None:
            parts.append(f" {clock(facts.elapsed)}")
        parts += ["  ", meter(facts.money, wide)]
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        for start, end, mode in self._spans:
            if start <= event.x < end:
                self.app.switch_mode(mode)

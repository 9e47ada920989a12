"""How a state looks: always a glyph and a word, and a colour that only repeats them. Colours are theme tokens."""

from __future__ import annotations

from textual.content import Content

RUN = {
    "queued": ("◌", "$foreground-muted"),
    "starting": ("◔", "$text-primary"),
    "running": ("●", "$text-success"),
    "quiet": ("◐", "$text-warning"),
    "stalled": ("▲", "$text-error"),
    "silent": ("?", "$text-warning"),
    "stale": ("●", "$text-warning"),
    "finished": ("✓", "$text-success"),
    "failed": ("✗", "$text-error"),
    "stopped": ("■", "$text-warning"),
    "lost": ("✗", "$text-error"),
    "idle": ("○", "$foreground-muted"),
}
STAGE = {
    "waiting": ("○", "$foreground-muted"),
    "started": ("▶", "$text-primary"),
    "finished": ("✓", "$text-success"),
    "skipped": ("✓", "$text-success"),
    "failed": ("✗", "$text-error"),
    "stopped": ("■", "$text-warning"),
}
LEVEL = {"info": ("i", "$text-primary"), "warning": ("▲", "$text-warning"), "error": ("✗", "$text-error")}


def run_state(word: str) -> Content:
    """`● RUNNING` in its colour."""
    glyph, colour = RUN.get(word, RUN["idle"])
    return Content.styled(f"{glyph} {word.upper()}", colour)

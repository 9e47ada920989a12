"""The two themes of our own, one calm dark and one light; every theme of the framework can be chosen instead."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="llmconsole-dark", dark=True, background="#11151c", surface="#171c26", panel="#1d2430", foreground="#c8d0dc",
    primary="#6f9fd8", secondary="#a08fd0", accent="#5fb8b0", success="#86b875", warning="#d9a860", error="#dd7280",
)
LIGHT = Theme(
    name="llmconsole-light", dark=False, background="#f7f8fa", surface="#eef0f4", panel="#e3e7ee", foreground="#2a313c",
    primary="#2f6db3", secondary="#6d57ad", accent="#13756d", success="#3a7d2c", warning="#9a6400", error="#b3303f",
)

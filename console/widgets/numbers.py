"""How numbers, spans of time and sizes are written on screen, the same in every pane. Knows no widget."""

from __future__ import annotations

import math
import time

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(value: float | None, digits: int = 3) -> str:
    """A number in about `digits` significant digits: 2.413, 48.2, 1.10M, 4.9k; a dash when there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    size = abs(value)
    for unit, letter in _UNITS:
        if size >= unit * (1 - 10**-digits / 2):
            return _significant(value / unit, digits) + letter
    if size != 0 and size < 1e-3:
        return f"{value:.{max(digits - 2, 0)}e}".replace("e-0", "e-")
    return _significant(value, digits)


def _significant(value: float, digits: int) -> str:
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(digits - whole, 0)}f}"


def compact(value: float) -> str:
    """Like `short`, without zeros that say nothing: 5k, 0.8, 100."""
    text = short(value)
    body, letter = (text[:-1], text[-1]) if text[-1:].isalpha() and text != "NaN" else (text, "")
    return (body.rstrip("0").rstrip(".") if "." in body and "e" not in body else body) + letter


def grouped(value: float) -> str:
    """Whole numbers with thousands separators: 12,481."""
    return f"{value:,.0f}" if math.isfinite(value) else short(value)


def clock(seconds: float | None) -> str:
    """Elapsed time as a stopwatch: 0:42, 12:05, 2:14:08."""
    if seconds is None:
        return "–"
    total = max(int(seconds), 0)
    hours, rest = divmod(total, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def span(seconds: float | None) -> str:
    """About how long, in words: 40 s, 3 min, 2.5 h, 4 days."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s" if seconds != int(seconds) else f"{seconds:.0f} s"
    for limit, unit, word in ((100, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.1f} {word}" if word == "h" and value < 10 else f"{value:.0f} {word}"
    return f"{seconds / 86_400:.0f} days"


def ago(then: float, now: float | None = None) -> str:
    """How long since `then` (wall time): just now, 3 min ago."""
    gone = (time.time() if now is None else now) - then
    return "just now" if gone < 5 else f"{span(round(gone))} ago"


def size(amount: float | None) -> str:
    """Bytes for a person: 812 B, 3.9 MB, 46.8 GB (powers of 1,000)."""
    if amount is None:
        return "–"
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {word}"
    return f"{amount:.0f} B"


def line_bar(share: float, width: int) -> tuple[str, str]:
    """A thin bar as its filled and its empty part, `width` cells together."""
    width = max(width, 0)
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    halves = round(share * width * 2)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "━" * (width - len(filled))


def bar(share: float, width: int) -> str:
    """A progress bar `width` cells wide, with eighths of a cell."""
    width = max(width, 0)
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
    return text[:width].ljust(width)

"""Which lines of a growing log match what is looked for, found a little at a time. Knows no widget."""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable

SCAN_S = 0.012  # of each 30 ms while it catches up


def pattern_of(text: str) -> re.Pattern[str]:
    """A case-insensitive regular expression, unless capitals are typed; what is none is taken literally."""
    flags = 0 if any(c.isupper() for c in text) else re.IGNORECASE
    try:
        return re.compile(text, flags)
    except re.error:
        return re.compile(re.escape(text), flags)


class LogSearch:
    """`lines` are the numbers of those that match, in order; while `hiding`, they are all that is shown."""

    def __init__(self) -> None:
        self.pattern: re.Pattern[str] | None = None
        self.inverse = self._hide = False
        self.forget()

    def forget(self) -> None:
        """Another log, or another pattern: look from its first line."""
        self.lines: array[int] = array("Q")
        self._scanned = 0

    def look_for(self, text: str, *, hide: bool) -> None:
        """An empty text looks for nothing."""
        self.pattern, self._hide = pattern_of(text) if text else None, hide
        self.forget()

    def invert(self) -> bool:
        """Match what did not match; False when nothing is looked for."""
        if self.pattern is not None:
            self.inverse = not self.inverse
            self.forget()
        return self.pattern is not None

    def show_all(self) -> None:
        self._hide = False

    @property
    def hiding(self) -> bool:
        return self._hide and self.pattern is not None

    def behind(self, total: int) -> bool:
        """Whether lines are left that nobody has looked at."""
        return self.pattern is not None and self._scanned < total

    def scan(self, line: Callable[[int], str], total: int) -> None:
        """Look on for a moment."""
        if self.pattern is None:
            return
        deadline, search = time.perf_counter() + SCAN_S, self.pattern.search
        while self._scanned < total:
            if (search(line(self._scanned)) is None) is self.inverse:
                self.lines.append(self._scanned)
            self._scanned += 1
            if self._scanned % 64 == 0 and time.perf_counter() > deadline:
                return

    def line_at(self, position: int) -> int:
        """The line of the file at this place of the view."""
        if self.hiding:
            return self.lines[min(position, len(self.lines) - 1)] if self.lines else 0
        return position

    def position(self, line: int) -> int:
        """Where a line, or the next that is shown, stands in the view."""
        return bisect_left(self.lines, line) if self.hiding else line

    def neighbour(self, line: int, direction: int) -> int | None:
        """The next (1) or previous (-1) match after a line, around the end; None without any."""
        if not self.lines:
            return None
        at = bisect_right(self.lines, line) if direction > 0 else bisect_left(self.lines, line) - 1
        return self.lines[at % len(self.lines)]

"""Stop strings in a stream: text is held back only while it could still become one of them."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Feed it text piece by piece; what it gives back never contains a stop string or the beginning of one that hit."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The text that is safe to show. After a hit: what came before the stop string, then nothing."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        places = [place for place in map(self._held.find, self._stops) if place >= 0]
        if places:
            self.hit = True
            return self._give(min(places), forget=True)
        return self._give(len(self._held) - self._open_end())

    def close(self) -> str:
        """What was held back for nothing."""
        return self._give(len(self._held))

    def _give(self, count: int, forget: bool = False) -> str:
        text, self._held = self._held[:count], "" if forget else self._held[count:]
        return text

    def _open_end(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

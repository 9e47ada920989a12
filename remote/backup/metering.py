"""Turns byte counts into a few progress messages a second, with a rate, whatever the speed of what is counted.

One meter per file and phase; its counts come from one thread, the messages go to whoever wants to show them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from remote.safekeeping import CheckpointId, Transfer

_EVERY_S = 0.25
_WINDOW_S = 5.0  # the rate is that of the last seconds

Progress = Callable[[Transfer], None]


class Meter:
    """Call it with the bytes done so far."""

    def __init__(self, progress: Progress, checkpoint: CheckpointId, file: str, phase: str, total: int) -> None:
        self._progress, self._checkpoint, self._file, self._phase = progress, checkpoint, file, phase
        self.total, self._last = total, 0.0
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY_S and done < self.total:
            return
        self._last = now
        self._tell(done, self._rate(now, done))

    def start(self, done: int = 0) -> None:
        """Bytes that were there before count as done and not into the rate."""
        self._marks = deque([(time.monotonic(), done)])
        self._tell(done, 0.0)

    def say(self, note: str, done: int = 0) -> None:
        """A wait or a retry, in words."""
        self._progress(Transfer(self._checkpoint, self._file, self._phase, done, self.total, 0.0, note))

    def _rate(self, now: float, done: int) -> float:
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()
        begin, had = self._marks[0]
        return max(done - had, 0) / (now - begin) if now > begin else 0.0

    def _tell(self, done: int, rate: float) -> None:
        self._progress(Transfer(self._checkpoint, self._file, self._phase, done, self.total, rate))

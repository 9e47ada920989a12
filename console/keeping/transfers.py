"""Backing up, proving and restoring beside a screen: one job at a time on its own thread, told twice a second.

What is under way is a picture (`Board`) that anyone may take; no widget is known. A job that is interrupted by leaving
goes on where it was when it is asked for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from console.errors import ConsoleError
from remote.errors import RemoteError
from remote.safekeeping import Transfer

_EVERY_S = 0.5
_KEEP_S = 15.0  # why something waited stays in the picture for so long


@dataclass(frozen=True)
class Board:
    """What is going on: the job in words, the files that move, the unfinished first, and why some waited."""

    job: str = ""
    transfers: tuple[Transfer, ...] = ()
    retries: tuple[str, ...] = ()
    began: float = 0.0

    @property
    def busy(self) -> bool:
        return bool(self.job)


@dataclass(frozen=True)
class Ended:
    """How a job ended, for a notice. `good` is False when something is not safe, not whole or not done."""

    text: str
    next: str = ""
    good: bool = True
    answer: str = ""  # to "would anything be lost?", where that was the job


Job = Callable[[Callable[[Transfer], None], threading.Event], Ended]


class TransferDesk:
    """`start` a job; `tell` gets a Board at most twice a second, `ended` how it came out. Both on the job's thread."""

    def __init__(self, tell: Callable[[Board], None], ended: Callable[[Ended], None]) -> None:
        self._tell, self._ended = tell, ended
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._job, self._began, self._told = "", 0.0, 0.0
        self._files: dict[tuple[str, str], Transfer] = {}
        self._retries: list[tuple[float, str]] = []

    def start(self, name: str, job: Job) -> bool:
        """False when another job is under way."""
        with self._guard:
            if self._job:
                return False
            self._job, self._began, self._stop = name, time.time(), threading.Event()
            self._files.clear()
            self._retries.clear()
        threading.Thread(target=self._run, args=(job, self._stop), daemon=True, name="transfer").start()
        return True

    def stop(self) -> None:
        """Ask the job to end; what it did stays done."""
        self._stop.set()

    def board(self) -> Board:
        with self._guard:
            since = time.monotonic() - _KEEP_S
            live = sorted((t for t in self._files.values() if t.done < t.total), key=lambda t: t.file)
            recent = tuple(text for at, text in self._retries[-3:] if at > since)
            return Board(self._job, tuple(live[:8]), recent, self._began)

    def _run(self, job: Job, stop: threading.Event) -> None:
        try:
            ended = job(self._progress, stop)
        except ConsoleError as error:
            ended = Ended(str(error), error.next, False)
        except (RemoteError, OSError) as error:
            ended = Ended(str(error), "do it again: what arrived is not sent twice", False)
        with self._guard:
            self._job = ""
        self._tell(self.board())
        self._ended(ended)

    def _progress(self, transfer: Transfer) -> None:
        with self._guard:
            now = time.monotonic()
            if transfer.file:
                self._files[f"{transfer.checkpoint} {transfer.file}", transfer.phase] = transfer
            if transfer.note and (transfer.done < transfer.total or not transfer.file):
                text = f"{transfer.file}: {transfer.note}" if transfer.file else transfer.note
                self._retries.append((now, text))
            if now - self._told < _EVERY_S:
                return
            self._told = now
        self._tell(self.board())

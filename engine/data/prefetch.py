"""Work done ahead on a thread, so that what it makes is there when it is asked for.

What comes out is what the iterator gives, in order, its error included. Leaving the loop early ends the thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Ended:
    """Nothing comes any more; with the error that was the reason, if one was."""

    error: BaseException | None = None


def prefetch(source: Iterator[T], depth: int) -> Iterator[T]:
    """The items of `source`, of which up to `depth` are made ahead."""
    items: queue.SimpleQueue[T | _Ended] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            for item in source:
                room.acquire()
                if stopped.is_set():
                    return
                items.put(item)
            items.put(_Ended())
        except BaseException as error:  # noqa: BLE001 - handed to the one who listens, who raises it
            items.put(_Ended(error))

    worker = threading.Thread(target=work, name="prefetch", daemon=True)
    worker.start()
    try:
        while not isinstance(value := items.get(), _Ended):
            room.release()
            yield value
        if value.error is not None:
            raise value.error
    finally:
        stopped.set()
        room.release()
        worker.join()

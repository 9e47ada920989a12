"""Ctrl-c while files travel: threads that carry them end too, and the person hears that nothing has to come twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from console.errors import ConsoleError
from console.exit_codes import Exit


class _Interrupted(ConsoleError):
    exit = Exit.INTERRUPTED


@contextmanager
def ctrl_c_stops() -> Iterator[threading.Event]:
    """An event that ctrl-c sets before anything waits for the threads that look at it. For the main thread."""
    stop = threading.Event()

    def interrupted(*_: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    except KeyboardInterrupt:
        raise _Interrupted("interrupted; what has arrived is kept", "do it again to go on from there") from None
    finally:
        signal.signal(signal.SIGINT, before)

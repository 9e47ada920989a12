"""At most one stage of a run is ever at work, whoever was killed on the way.

The lock file's descriptor is inherited by the stage, so the kernel holds the lock until both the supervisor and its
stage are gone. The file says who they are; a new supervisor uses that to tell a rival from an orphan.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_LOOK_AGAIN = 0.1        # seconds between two tries
_NOTE_BYTES = 256
_SAME_PROCESS = 2.0      # seconds by which two readings of one process's start time may differ


class AnotherSupervisor(RuntimeError):
    """A living supervisor holds the run; attach to it instead."""


class StageLock:
    """Held by a supervisor from `acquire` until its process and its stage's process have ended."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self, stop: Callable[[], bool], waiting: Callable[[], None]) -> bool:
        """Take the lock, waiting for an orphaned stage to save and end (`waiting` is called once when that is so).

        False when `stop()` became true first. Raises AnotherSupervisor when a living supervisor holds it and means to
        go on; one that was asked to stop is waited for.
        """
        told = asked = False
        while not self._try():
            if stop():
                return False
            holder = self._read()
            rival, orphan = _alive(holder.get("supervisor")), holder.get("stage")
            if rival and not holder["stopping"]:
                raise AnotherSupervisor(f"process {holder['supervisor'][0]} already drives this run")
            if holder and not told:
                told = True
                waiting()
            if not rival and not asked and orphan and _alive(orphan):
                asked = True
                with suppress(ProcessLookupError):  # gone between the look and the signal: what we want
                    os.kill(orphan[0], signal.SIGTERM)
            time.sleep(_LOOK_AGAIN)
        self.note(None)
        return True

    def note(self, stage_pid: int | None, stopping: bool = False) -> None:
        """Write down who holds the lock now: this process, the stage it runs, and whether it was asked to stop."""
        stage = None if stage_pid is None else _identity(stage_pid)
        body = {"supervisor": _identity(os.getpid()), "stage": stage, "stopping": stopping}
        os.pwrite(self.fd, json.dumps(body).encode().ljust(_NOTE_BYTES), 0)  # one write: a signal handler may do it too

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self) -> dict[str, Any]:
        """Who holds it; {} while the holder is just writing that."""
        try:
            found = json.loads(os.pread(self.fd, _NOTE_BYTES, 0))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _identity(pid: int) -> tuple[int, float] | None:
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _alive(who: Any) -> bool:
    """Whether the process that was written down still runs; a zombie does not."""
    if not who:
        return False
    try:
        process = psutil.Process(who[0])
        return abs(process.create_time() - who[1]) < _SAME_PROCESS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

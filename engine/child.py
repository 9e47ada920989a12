"""One stage's process as its supervisor sees it: how it starts, where its words go, how its end reads.

It knows nothing of recipes, events or attempts beyond a number in a header line.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024
_LINE_LENGTH = 500  # characters of a line that go into an event; the log keeps it whole
_PR_SET_PDEATHSIG = 1


def begin_log(log: Path, attempt: int, argv: Sequence[str]) -> int:
    """Append this attempt's header line to the stage's log; returns where its own words will start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab+") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - 1))
        cut_off = f.read(1) not in (b"", b"\n")
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        f.write((b"\n" if cut_off else b"") + f"--- attempt {attempt} · {now} · {' '.join(argv)}\n".encode())
        return f.tell()


def start(argv: Sequence[str], env: Mapping[str, str], log: Path, lock_fd: int) -> subprocess.Popen[bytes]:
    """Start a stage; it inherits `lock_fd`, and on Linux it gets SIGTERM when this process dies. Raises OSError.

    Its process group is its own, so that a SIGTERM for the supervisor's group reaches it once, passed on by us.
    """
    with open(log, "ab") as out:
        return subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                env={**os.environ, **env}, pass_fds=(lock_fd,), preexec_fn=_before_exec())


def _before_exec() -> Callable[[], None]:
    """What the new process does before it becomes the stage. Safe after fork: the supervisor has only one thread."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def tie() -> None:
        os.setpgid(0, 0)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the tie was made
                os.kill(os.getpid(), signal.SIGTERM)

    return tie


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or None when the stage is still at work after `seconds`."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave no stage behind when its supervisor must go: ask it to save, then wait for it."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def describe(code: int) -> str:
    """An exit code in words: negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + ("; not enough memory is the usual cause" if code == -signal.SIGKILL else "")


def last_lines(log: Path, start: int) -> list[str]:
    """The last lines of a log, none of them from before byte `start`, each cut to a sane length."""
    with open(log, "rb") as f:
        end_of_file = f.seek(0, os.SEEK_END)
        f.seek(max(start, end_of_file - _TAIL_BYTES))
        text = f.read().decode(errors="replace")
    return [line[:_LINE_LENGTH] for line in text.splitlines()[-TAIL_LINES:]]


def folder_gb(folder: Path) -> float:
    """What the files below `folder` take, in GB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9

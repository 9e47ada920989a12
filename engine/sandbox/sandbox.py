"""Where a model's code runs, or a clear word why it does not: a warm supervisor, proven at start, one verdict a time.

The proof is a program that really tries to get out (`engine.sandbox.self_test`). Without it nothing is run at all.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.sandbox import wire

SECONDS = 5.0  # for one program and all of its tests
_GRACE = 5.0  # more than the deadline, for the supervisor to say so
_START = 60.0
_ROOT = Path(__file__).parents[2]
_BOOT = ("import sys; sys.path.insert(0, {root!r}); from engine.sandbox import supervisor; "
         "sys.path.remove({root!r}); supervisor.run()")


class SandboxUnavailable(RuntimeError):
    """This machine cannot confine a program, or could not prove that it does; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests; `reason` says in a line why not."""

    passed: bool
    reason: str


class Sandbox:
    """One supervisor process. `judge` may be called from several threads; they take turns."""

    def __init__(self, *, prove: bool = True) -> None:
        """Start, and prove the isolation. Raises SandboxUnavailable."""
        if sys.platform != "linux":
            raise SandboxUnavailable(f"running model-written code needs Linux (seccomp); this is {sys.platform}")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.walls = self._start()
        if prove:
            from engine.sandbox.self_test import prove_isolation

            try:
                prove_isolation(self)
            except SandboxUnavailable:
                self.close()
                raise

    def judge(self, code: str, entry_point: str, tests: str, *, prelude: str = "",
              seconds: float = SECONDS) -> Verdict:
        """Run the module `code`, and `tests` against its function `entry_point`.

        `tests` sees the names that `prelude` defines; where it defines `check`, that is called with the function.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            try:
                self._send({"code": code, "entry_point": entry_point, "seconds": seconds})
                self._send({"tests": tests, "prelude": prelude})
                answer = self._receive(seconds + _GRACE)
            except (OSError, wire.WireError) as error:
                self._stop()
                return Verdict(False, f"the sandbox had to be started again: {error}")
        return Verdict(bool(answer["passed"]), str(answer["reason"]))

    def close(self) -> None:
        with self._lock:
            self._stop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> str:
        """A fresh supervisor; what it says of its walls."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _BOOT.format(root=str(_ROOT))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/", bufsize=0, start_new_session=True)
        try:
            return str(self._receive(_START)["ready"])
        except (OSError, wire.WireError, KeyError, TypeError) as error:
            reason = self._last_words() or str(error)
            self._stop()
            raise SandboxUnavailable(f"the sandbox does not start: {reason}") from error

    def _last_words(self) -> str:
        assert self._process is not None and self._process.stderr is not None
        self._process.kill()
        lines = self._process.stderr.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _send(self, value: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        wire.send(self._process.stdin.fileno(), value)

    def _receive(self, seconds: float) -> Any:
        assert self._process is not None and self._process.stdout is not None
        fd = self._process.stdout.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            raise wire.WireError(f"no answer within {seconds:.0f} s")
        return wire.receive(fd)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def available() -> str | None:
    """Why programs cannot be run here, or None when they can; starts and proves a sandbox to know."""
    try:
        Sandbox().close()
    except SandboxUnavailable as error:
        return str(error)
    return None


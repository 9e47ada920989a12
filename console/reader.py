"""The background thread that reads for the screens, so that a slow disk or a million points never stop a key press.

A daemon thread of its own: Textual waits for its thread workers when it quits, and nobody should wait for a read.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message

from console.crosshair import StepDesk, StepWish
from console.curves import CurveDesk, CurveWish
from console.errors import ConsoleError
from console.glance import StateDesk, look
from console.messages import CurvesRead, Looked, ReadFailed, StepRead
from remote.errors import RemoteError

if TYPE_CHECKING:
    from console.workspace import Workspace

LEAST_S = 0.9  # between two looks: charts are drawn about once a second
EVERY_S = 5.0  # without any change: states also depend on the clock and on processes


class Reader:
    """`ask` for a look and for curves; the answers are posted. Only the newest request counts."""

    def __init__(self, workspace: Workspace, post: Callable[[Message], object]) -> None:
        self._workspace, self._post = workspace, post
        self._desk, self._steps = CurveDesk(workspace.queries), StepDesk(workspace.queries)
        self._states = StateDesk(workspace.operator)
        self._version, self._looked = -1, 0.0
        self._wake = threading.Condition()
        self._run: str | None = None
        self._look = self._force = False
        self._beside: tuple[str, ...] = ()
        self._wishes: tuple[CurveWish, ...] | None = None
        self._step: StepWish | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 0.3) -> None:
        """No answers any more; waits a moment for a read that is going on."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(patience)

    def ask(self, run: str | None, *, force: bool = False) -> None:
        """Look again if anything has changed or some seconds have passed; `force` looks in any case."""
        with self._wake:
            self._run, self._look, self._force = run, True, self._force or force
            self._wake.notify()

    def ask_curves(self, wishes: tuple[CurveWish, ...]) -> None:
        with self._wake:
            self._wishes = wishes
            self._wake.notify()

    def ask_step(self, wish: StepWish) -> None:
        """Every value at one step."""
        with self._wake:
            self._step = wish
            self._wake.notify()

    def compare_with(self, runs: tuple[str, ...]) -> None:
        """From now on these are read beside the run in front."""
        with self._wake:
            self._beside, self._look, self._force = runs, True, True
            self._wake.notify()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not (self._stopped or self._force or self._wishes is not None or self._step or self._look_now()):
                    self._wake.wait(self._pause() if self._look else None)
                if self._stopped:
                    return
                run, looks, force = self._run, self._look_now(), self._force
                wishes, step = self._wishes, self._step
                self._look, self._force, self._wishes = self._look and not looks and not force, False, None
                self._step = None
            self._answer(run, looks or force, force, wishes, step)

    def _look_now(self) -> bool:
        return self._look and self._pause() <= 0

    def _pause(self) -> float:
        """Seconds until the next look may be."""
        return self._looked + LEAST_S - time.monotonic()

    def _answer(self, run: str | None, looks: bool, force: bool, wishes: tuple[CurveWish, ...] | None,
                step: StepWish | None) -> None:
        try:
            if looks and (self._changed() or force):
                self._looked = time.monotonic()
                if force:
                    self._states.forget()
                self._send(Looked(look(self._workspace, self._states, run, self._beside)))
            if wishes is not None:
                self._send(CurvesRead(self._desk.serve(wishes)))
            if step is not None:
                self._send(StepRead(self._steps.serve(step)))
        except (sqlite3.Error, OSError, RemoteError, ConsoleError) as error:
            self._send(ReadFailed(str(error)))

    def _changed(self) -> bool:
        """Something was committed since the last look, or the last look is some seconds ago."""
        version, before = self._workspace.queries.data_version(), self._version
        self._version = version
        return version != before or time.monotonic() - self._looked >= EVERY_S

    def _send(self, message: Message) -> None:
        if not self._stopped:
            self._post(message)

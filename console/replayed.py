"""Plays a recorded run again as a run of its own: the same events and log lines, faster, every screen live, no work.

    python -m console.replayed RUN_DIR

It is the job of the new run, so it is stopped and resumed like any other; resumed, it goes on where it was. What is
played is only read.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.errors import NotFound, Refused
from console.machines.targets import LOCAL
from console.runlog.queries import REPLAYED
from engine.context import ATTEMPT, EXIT_STOPPED
from engine.events import Event, EventWriter, parse_line, split_lines
from engine.rundir import RunDir, base_dir, new_run_id, runs_dir

if TYPE_CHECKING:
    from console.workspace import Workspace

_STOPPED = "not played any more"
LONGEST_WAIT_S = 2.0  # between two events, however long it was


def replay(workspace: Workspace, run: str, speed: float) -> str:
    """Begin to play this run again, `speed` times as fast; the new run's id.

    Raises NotFound, and Refused where nothing of it was recorded here.
    """
    from console.machines.mirror import folder_of

    target, path = workspace.operator.locate(run)
    source, known = folder_of(workspace.home, run, target, path), workspace.queries.run(run)
    if not source.events.exists():
        raise Refused(f"nothing of {run} was recorded on this machine", "choose a run that has curves")
    if known is None:
        raise NotFound(f"no run is called {run!r}")
    new = new_run_id("replay")
    described = {"v": 1, "run": new, "recipe": known.recipe, "title": f"replay of {run}", "created": time.time(),
                 "target": LOCAL, "software": known.software, "stages": _stages(workspace, run),
                 REPLAYED: {"folder": str(source.path), "speed": speed}}
    workspace.operator.begin(new, 1, LOCAL, str(runs_dir(base_dir()) / new), described)
    return new


def _stages(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    return [{"id": each.id, "stage": each.stage, "title": each.title, "args": each.args}
            for each in workspace.queries.stages(run)]


class Player:
    """Fills one run folder from a recorded one until its end, or until `stop`."""

    def __init__(self, run: RunDir, source: RunDir, speed: float, stop: threading.Event) -> None:
        self._run, self._source, self._speed, self._stop = run, source, speed, stop
        self._recorded = list(_recorded(source))
        self._total = Counter(event.stage for event in self._recorded)
        self._played: Counter[str | None] = Counter()

    def play(self) -> int:
        """The exit code."""
        done = sum(event.data.get("reason") != _STOPPED for event in _recorded(self._run))
        attempt = int(os.environ.get(ATTEMPT) or 1)
        writer = EventWriter(self._run.events, run=self._run.id, attempt=attempt)
        before = None
        for number, event in enumerate(self._recorded):
            self._played[event.stage] += 1
            if number < done:
                continue
            gap = 0.0 if before is None else min((event.t - before) / self._speed, LONGEST_WAIT_S)
            before = event.t
            if self._stop.wait(max(gap, 0.0)):
                writer.emit("run", {"state": "stopped", "exit_code": EXIT_STOPPED, "reason": _STOPPED})
                return EXIT_STOPPED
            writer.emit(event.kind, event.data, step=event.step, stage=event.stage)
            self._log(event.stage)
        return 0

    def _log(self, stage: str | None) -> None:
        """As much of the stage's log as of its events, to the end of a line."""
        if stage is None or not (recorded := self._source.stage_log(stage)).exists():
            return
        copy = self._run.stage_log(stage)
        copy.parent.mkdir(parents=True, exist_ok=True)
        have = copy.stat().st_size if copy.exists() else 0
        until = recorded.stat().st_size * self._played[stage] // self._total[stage]
        with open(recorded, "rb") as source, open(copy, "ab") as log:
            source.seek(have)
            piece = source.read(until - have) if until > have else b""
            log.write(piece[:piece.rfind(b"\n") + 1] if self._played[stage] < self._total[stage] else piece)


def _recorded(run: RunDir) -> Iterator[Event]:
    data = run.events.read_bytes() if run.events.exists() else b""
    for line in split_lines(data)[0]:
        if (event := parse_line(line)) is not None:
            yield event


def main(argv: list[str]) -> int:
    run, stop = RunDir(Path(argv[0])), threading.Event()
    what = run.read()[REPLAYED]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return Player(run, RunDir(Path(what["folder"])), float(what["speed"]), stop).play()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

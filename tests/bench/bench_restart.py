"""After kill -9 with 1,000,000 metrics in the log and a run alive: how soon the console is usable, and attached.

    python tests/bench/bench_restart.py

Also tells how long the first catch-up of those lines took. Attached means: a step that the run wrote after the restart
stands on the Run screen. Prints one JSON line per figure with its budget; exit code 1 when one is missed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench_tui import STAGES, Terminal, make_run, metric, say

from console.workspace import Workspace
from engine.events import EventWriter

STEPS = 1_000_000
USABLE_S, ATTACHED_S, CATCH_UP_S = 2.0, 5.0, 15.0
LOG = "02-base_train.log"


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="bench-restart-"))
    try:
        writer = make_run(folder / "base", 1, 1)
        write_steps(writer, STEPS)
        results = [say("catch-up of 1,000,000 lines", catch_up(folder), CATCH_UP_S, "s")]
        results += restart(folder, writer)
    finally:
        shutil.rmtree(folder)
    return 0 if all(results) else 1


def write_steps(writer: EventWriter, steps: int) -> None:
    for step in range(2, steps + 1):
        writer.metric(step, loss=2 + 10 / step, lrm=1.0, dt=0.4, tok_per_sec=9600.0, mfu=41.0, grad_norm=0.5)


def catch_up(folder: Path) -> float:
    os.environ["NANOCHAT_BASE_DIR"] = str(folder / "base")
    start = time.perf_counter()
    with Workspace.open(folder / "home") as workspace:
        workspace.ingest()
        rows = workspace.queries.connection().execute("SELECT count(*) FROM points").fetchone()[0]
    seconds = time.perf_counter() - start
    print(json.dumps({"name": "points in the run log", "value": rows, "stages": len(STAGES)}), flush=True)
    return seconds


def restart(folder: Path, writer: EventWriter) -> list[bool]:
    log = folder / "base" / "runs" / "tiny-0001" / "logs" / LOG
    first = Terminal(folder)
    first.wait_for("Start here")
    first.press("2")
    first.wait_for("train loss")
    first.process.kill()
    first.process.wait()
    again = Terminal(folder)
    usable = again.wait_for("Start here")
    metric(writer, log, STEPS + 77)
    again.press("2")
    attached = again.wait_for(f"step {STEPS + 77}")  # its line in the log pane
    quit_s = again.quit()
    return [say("usable after kill -9", usable, USABLE_S, "s"), say("attached", attached, ATTACHED_S, "s"),
            say("quit", quit_s, 1.0, "s")]


if __name__ == "__main__":
    sys.exit(main())

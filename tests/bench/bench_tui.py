"""How fast the screen is: first frame with 1,000 runs in the log, CPU share of a live run screen, time to quit.

    python tests/bench/bench_tui.py

Starts the real program on a pseudo-terminal of 120x36 with its state in a temporary folder; prints one JSON line per
figure, with the budget it is held against. Exit code 1 when a budget is missed.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from engine import rundir
from engine.events import EventWriter

ROOT = Path(__file__).parents[2]
PROGRAM = "from console.door import main; main()"
STAGES = [
    {"id": f"{i:02d}-{s}", "stage": s, "title": s, "args": {}} for i, s in enumerate(("dataset", "base_train"), 1)
]


class Terminal:
    """The program on its own pseudo-terminal; everything it writes is read away by a thread."""

    def __init__(self, folder: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        env = {
            **os.environ,
            "LLMCONSOLE_HOME": str(folder / "home"),
            "NANOCHAT_BASE_DIR": str(folder / "base"),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(slave)
        self.text, self.bytes = "", 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while select.select([self.master], [], [], 60)[0]:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:
                return
            self.bytes += len(data)
            self.text += re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", data.decode("utf-8", "replace"))

    def wait_for(self, text: str, seconds: float = 30.0) -> float:
        """Seconds from the start of the program until `text` was written."""
        deadline = time.perf_counter() + seconds
        while text not in self.text:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{text!r} never came; the end of what came: {self.text[-400:]!r}")
            time.sleep(0.002)
        return time.perf_counter() - self.started

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def quit(self) -> float:
        """Seconds from the key until the process is gone."""
        start = time.perf_counter()
        self.press("q")
        self.process.wait(timeout=30)
        return time.perf_counter() - start


def make_run(base: Path, number: int, steps: int) -> EventWriter:
    run = rundir.create(
        base,
        f"tiny-{number:04d}",
        {
            "v": 1,
            "run": f"tiny-{number:04d}",
            "recipe": "tiny",
            "title": "Tiny",
            "created": float(number),
            "target": "local",
            "software": "",
            "stages": STAGES,
        },
    )
    writer = EventWriter(run.events, run=run.id, stage="02-base_train")
    writer.emit("run", {"state": "started", "recipe": "tiny", "title": "Tiny", "stages": STAGES})
    writer.emit("stage", {"state": "started"})
    for step in range(1, steps + 1):
        metric(writer, run.stage_log("02-base_train"), step)
    return writer


def metric(writer: EventWriter, log: Path, step: int) -> None:
    writer.metric(step, loss=2 + 10 / step, lrm=1.0, dt=0.4, tok_per_sec=9600.0 + step % 7, mfu=41.0, grad_norm=0.5)
    writer.progress(step, 5000, "step", 10.0)
    with log.open("a") as f:
        f.write(f"step {step:05d}/05000 | loss {2 + 10 / step:.4f} | dt 400ms | tok/s 9,600 | mfu 41.0 | gn 0.50\n")


def say(name: str, value: float, budget: float, unit: str) -> bool:
    print(
        json.dumps({"name": name, "value": round(value, 4), "budget": budget, "unit": unit, "ok": value <= budget}),
        flush=True,
    )
    return value <= budget


def first_frame(folder: Path) -> bool:
    """The state is filled by a first start, so that what is timed is a start and not reading 1,000 new folders."""
    for number in range(1000):
        writer = make_run(folder / "base", number, 1)
        writer.emit("run", {"state": "finished", "exit_code": 0})
        writer.close()
    from console.workspace import Workspace

    os.environ["NANOCHAT_BASE_DIR"] = str(folder / "base")
    with Workspace.open(folder / "home") as workspace:
        workspace.ingest()
    frames, lists, quits = [], [], []
    for _ in range(5):
        terminal = Terminal(folder)
        frames.append(terminal.wait_for("Start here"))
        lists.append(terminal.wait_for("tiny-0999"))
        time.sleep(0.5)
        quits.append(terminal.quit())
    return all(
        [
            say("first frame, 1,000 runs in the log", min(frames), 0.4, "s"),
            say("first frame with the list of runs", min(lists), 0.6, "s"),
            say("quit", max(quits), 1.0, "s"),
        ]
    )


def live(folder: Path) -> bool:
    """Two steps a second arrive, as on a small machine; the run screen is in front."""
    writer = make_run(folder / "base", 1, 2000)
    log = folder / "base" / "runs" / "tiny-0001" / "logs" / "02-base_train.log"
    terminal = Terminal(folder)
    terminal.wait_for("Start here")
    terminal.press("2")
    terminal.wait_for("train loss")
    time.sleep(6)
    cpu, sent, start = terminal.cpu_seconds(), terminal.bytes, time.perf_counter()
    for step in range(2001, 2041):
        metric(writer, log, step)
        time.sleep(0.5)
    gone = time.perf_counter() - start
    share, rate = (terminal.cpu_seconds() - cpu) / gone, (terminal.bytes - sent) / gone / 1000
    return all(
        [
            say("CPU share of the live run screen", share, 0.05, "of a core"),
            say("sent to the terminal", rate, 80, "kB/s"),
            say("quit while it runs", terminal.quit(), 1.0, "s"),
        ]
    )


def main() -> int:
    results = []
    for measure in (first_frame, live):
        folder = Path(tempfile.mkdtemp(prefix="bench-tui-"))
        try:
            results.append(measure(folder))
        finally:
            shutil.rmtree(folder)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What one logged step costs the training loop: our event stream beside wandb's offline mode, and what kill -9 loses.

    LLMCONSOLE_PEERS_PYTHON=<python that has wandb> python tests/bench/bench_events.py

Blocks of calls alternate between the two, each in its own process, so that a busy machine is busy for both. Prints one
JSON line per figure; exit code 1 when our call takes more than a tenth of wandb's or when kill -9 loses a line.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKS, CALLS, KILLS = 8, 500, 20

# Both children: on each line of stdin log CALLS steps and answer with the median and the worst call in microseconds.
_LOOP = """
import sys, time
def block(n, log):
    times = []
    for i in range(n):
        begin = time.perf_counter()
        log(i)
        times.append((time.perf_counter() - begin) * 1e6)
    times.sort()
    return f"{times[len(times) // 2]} {times[-1]}"
def values(i):
    return dict(loss=2.5 + i * 1e-3, lrm=1.0, dt=0.48, tok_per_sec=1.09e6, mfu=48.2, grad_norm=0.5, train_time=i * 0.48)
def serve(log):
    for line in sys.stdin:
        print(block(int(line), log), flush=True)
"""
_OURS = _LOOP + """
from pathlib import Path
from engine.events import EventWriter
writer = EventWriter(Path(sys.argv[1]) / "events.jsonl", run="bench", stage="base_train")
serve(lambda i: writer.metric(i, **values(i)))
"""
_WANDB = _LOOP + """
import wandb
run = wandb.init(project="bench", dir=sys.argv[1], mode="offline", settings=wandb.Settings(silent=True))
serve(lambda i: run.log(values(i), step=None))
"""
# Tells each line's number on stdout only after it was logged, until it is killed.
_VICTIM = """
import sys
from pathlib import Path
from engine.events import EventWriter
writer = EventWriter(Path(sys.argv[1]), run="bench", stage="base_train")
for i in range(10**9):
    writer.metric(i, loss=1.0)
    sys.stdout.write(f"{i}\\n")
    sys.stdout.flush()
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = compare(Path(folder))
        lost = kill_and_count(Path(folder))
    share = ours / theirs if theirs else None
    print(json.dumps({"bench": "log call", "ours_us": ours, "wandb_us": theirs,
                      "share": share and round(share, 4), "limit": 0.1}))
    print(json.dumps({"bench": "kill -9 while logging", "kills": KILLS, "lost_lines": lost}))
    return int((share is not None and share > 0.1) or lost > 0)


def compare(folder: Path) -> tuple[float, float | None]:
    """Median microseconds of one call, ours and wandb's; None where no wandb is at hand."""
    peers = os.environ.get("LLMCONSOLE_PEERS_PYTHON")
    children = [_start(sys.executable, _OURS, folder / "ours")]
    if peers:
        children.append(_start(peers, _WANDB, folder / "wandb"))
    else:
        print("LLMCONSOLE_PEERS_PYTHON is not set: wandb is left out", file=sys.stderr)
    medians: list[list[float]] = [[] for _ in children]
    for _ in range(BLOCKS):
        for child, found in zip(children, medians, strict=True):
            assert child.stdin and child.stdout
            child.stdin.write(f"{CALLS}\n")
            child.stdin.flush()
            found.append(float(child.stdout.readline().split()[0]))
    for child in children:
        child.communicate(timeout=60)
    results = [round(statistics.median(found), 2) for found in medians]
    return results[0], results[1] if peers else None


def _start(python: str, code: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([python, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env=env, cwd=folder)


def kill_and_count(folder: Path) -> int:
    """Lines that a process said it had logged before it was killed and that are not in the file."""
    lost = 0
    for number in range(KILLS):
        path = folder / f"victim{number}.jsonl"
        child = subprocess.Popen([sys.executable, "-c", _VICTIM, str(path)], stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert child.stdout
        for _ in range(100 + 37 * number):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        told = 100 + 37 * number + len([line for line in child.communicate()[0].split("\n")[:-1] if line])
        lost += max(0, told - path.read_bytes().count(b"\n"))
    return lost


if __name__ == "__main__":
    sys.exit(main())

"""A recorded run is written again on a machine behind a link that is cut: is the run log here the same to the last row?

    python tests/bench/replay_runlog.py [--seconds 120] [--cut 1 20] [--lines 200000]

The console's own follower reads it over a real SSH server through a relay that resets every connection at random
moments. The recording appears in pieces that end anywhere, also within a line. At the end the run log is compared, row
by row, with one that read the same file on this machine, and the copied files byte by byte. Exit code 1 when they
differ, or when the end is not here 15 s after it was written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from console.machines.targets import SSH, Target, Targets  # noqa: E402
from console.workspace import Workspace  # noqa: E402
from remote.ssh.known_hosts import KnownHosts  # noqa: E402

RUN, STAGE = "recorded", "01-base_train"
_TABLES = ("points", "events", "series", "stages", "checkpoints")


@dataclass(frozen=True)
class Outcome:
    lines: int
    cuts: int
    late_s: float  # from the last byte over there to the last row here
    same_rows: bool
    same_files: bool


def recording(lines: int) -> bytes:
    """Events as a training run writes them; the times are the line numbers."""
    rows: list[str] = []

    def emit(kind: str, data: dict[str, Any], stage: str | None = STAGE, step: int | None = None) -> None:
        rows.append(json.dumps({"v": 1, "seq": len(rows) + 1, "t": float(len(rows)), "mono": 0.0, "run": RUN,
                                "attempt": 1, "stage": stage, "kind": kind, "step": step, "data": data}) + "\n")

    emit("run", {"state": "started"}, None)
    emit("stage", {"state": "started", "index": 1, "title": "Base", "log": f"logs/{STAGE}.log"})
    for step in range(lines - 4):
        if step % 250 == 249:
            emit("eval", {"val_bpb": 1 - step / 1e6}, step=step)
        elif step % 500 == 498:
            emit("checkpoint", {"source": "base", "tag": "d4", "dir": "x", "bytes": 9, "manifest": "m"}, step=step)
        else:
            emit("metric", {"loss": 4 - step / lines, "lrm": 1.0, "dt": 0.4, "tok_per_sec": 1e6}, step=step)
    emit("stage", {"state": "finished", "seconds": 9.0, "exit_code": 0})
    emit("run", {"state": "finished", "exit_code": 0}, None)
    return "".join(rows).encode()


def describe(folder: Path) -> None:
    (folder / "logs").mkdir(parents=True)
    about = {"v": 1, "run": RUN, "recipe": "tiny", "title": "T", "created": 1.0,
             "stages": [{"id": STAGE, "stage": "base_train", "title": "Base", "args": {}}]}
    (folder / "run.json").write_text(json.dumps(about))


def replay(box: Any, relay: Any, folder: Path, *, lines: int, seconds: float, cut: tuple[float, float]) -> Outcome:
    """`box` is a machine with an SSH server, `relay` the way to it; `folder` is empty."""
    data, far = recording(lines), folder / "far" / "runs" / RUN
    describe(far)
    KnownHosts(folder / "home" / "known_hosts").pin("box", box.host_key)
    Targets(folder / "home").put(Target("box", SSH, box.route().user, "127.0.0.1", relay.port, str(box.key),
                                        base=str(folder / "far"), python=(sys.executable,)))
    written, cuts = threading.Event(), [0]
    threads = [threading.Thread(target=_write, args=(far, data, seconds, written)),
               threading.Thread(target=_cut, args=(relay, cut, written, cuts))]
    os.environ["NANOCHAT_BASE_DIR"] = str(folder / "base")
    with Workspace.open(folder / "home") as workspace:
        workspace.operator.announce(RUN, "box", str(far), json.loads((far / "run.json").read_text()))
        for thread in threads:
            thread.start()
        workspace.follow()
        written.wait()
        late = _wait_for_end(workspace, len(data))
        for thread in threads:
            thread.join()
        same = _same_files(folder / "home" / "mirror" / RUN, far)
    return Outcome(lines, cuts[0], late, rows(folder / "home") == _read_here(folder, data), same)


def _write(far: Path, data: bytes, seconds: float, written: threading.Event) -> None:
    dice, begun, done = random.Random(1), time.monotonic(), 0
    with open(far / "events.jsonl", "ab", buffering=0) as f, open(far / "logs" / f"{STAGE}.log", "ab") as log:
        while done < len(data):
            due = int(min((time.monotonic() - begun) / seconds, 1.0) * len(data))
            end = max(due, min(done + dice.randrange(1, 5000), len(data)))
            f.write(data[done:end])
            log.write(b"step %d\n" % end)
            log.flush()
            done = end
            time.sleep(0.01)
    written.set()


def _cut(relay: Any, cut: tuple[float, float], written: threading.Event, cuts: list[int]) -> None:
    dice = random.Random(2)
    while not written.wait(dice.uniform(*cut)):
        relay.cut()
        cuts[0] += 1


def _wait_for_end(workspace: Workspace, size: int) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < 120:
        with contextlib.suppress(sqlite3.Error):
            row = workspace.queries.connection().execute("SELECT offset FROM sources").fetchone()
            if row and row[0] == size:
                break
        time.sleep(0.05)
    return time.monotonic() - begun


def _same_files(copied: Path, far: Path) -> bool:
    """Whether the copies are, or in some seconds become, the originals: logs are looked at every five seconds."""
    until, names = time.monotonic() + 20, ("events.jsonl", f"logs/{STAGE}.log")
    while not (same := all((copied / name).read_bytes() == (far / name).read_bytes() for name in names)):
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return same


def rows(home: Path) -> dict[str, list[Any]]:
    """Every row that the events lead to."""
    reader = sqlite3.connect(home / "runlog.db")
    try:
        return {table: reader.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in _TABLES}
    finally:
        reader.close()


def _read_here(folder: Path, data: bytes) -> dict[str, list[Any]]:
    run = folder / "base" / "runs" / RUN
    describe(run)
    (run / "events.jsonl").write_bytes(data)
    with Workspace.open(folder / "other") as workspace:
        workspace.ingest()
    return rows(folder / "other")


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seconds", type=float, default=120)
    words.add_argument("--cut", type=float, nargs=2, default=(1, 20))
    words.add_argument("--lines", type=int, default=200_000)
    args = words.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "remote"))
    import conftest

    folder = Path(tempfile.mkdtemp(prefix="replay-"))
    box = conftest.start_sshd(folder / "sshd")
    relay = conftest.Relay(box.port)
    try:
        found = replay(box, relay, folder / "world", lines=args.lines, seconds=args.seconds, cut=tuple(args.cut))
    finally:
        relay.close()
        box.process.terminate()
        shutil.rmtree(folder)
    print(f"{found.lines:,} lines through {found.cuts} cuts: rows {'the same' if found.same_rows else 'DIFFERENT'}, "
          f"copied files {'byte-identical' if found.same_files else 'DIFFERENT'}, complete {found.late_s:.1f} s after "
          "the last byte")
    return int(not (found.same_rows and found.same_files and found.late_s <= 15))


if __name__ == "__main__":
    sys.exit(main())

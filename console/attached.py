"""Follows a run of unmodified nanochat on any machine from its console log, as a run of our own on this one.

    python -m console.attached RUN_DIR

The run folder lies here and is filled from there: events as our own stages write them, each stage's lines as its log.
It is the job of that run, so it goes on when the console ends and is stopped and resumed like any other; on the other
machine nothing is written. Started again, it reads the log from the beginning and adds only what is new.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from console.runlog.queries import ATTACHED
from engine.context import ATTEMPT, EXIT_STOPPED
from engine.events import EventWriter, parse_line, split_lines
from engine.nanochat_log import SOURCES, TITLES, Found, NanochatLog
from engine.rundir import RunDir
from remote.errors import FileReplaced, HostRefused, NoSuchFile, RemoteError

if TYPE_CHECKING:
    from remote.host import Host

_ORDER = {stage: f"{number:02d}-{stage}" for number, stage in enumerate(TITLES, 1)}
_LOOK_S = 15.0  # seconds between looks for new logs and checkpoints of a folder
_MODEL = re.compile(r"model_(\d{1,9})\.pt")


def description(run: str, target: str, title: str, log: str, folder: str) -> dict[str, Any]:
    """run.json of a followed run."""
    return {"v": 1, "run": run, "recipe": ATTACHED, "title": title, "created": time.time(), "target": "local",
            "software": "nanochat", "stages": [], ATTACHED: {"target": target, "log": log, "dir": folder}}


@dataclass(frozen=True)
class Piece:
    """What came from one log, or why nothing more will."""

    source: str
    data: bytes = b""
    error: RemoteError | OSError | None = None


class Follower:
    """Fills one run folder until `stop`. Logs are read by a thread each; everything is written by the caller's."""

    def __init__(self, run: RunDir, host: Host, log: str, folder: str, stop: threading.Event) -> None:
        self._run, self._host, self._log, self._folder, self._stop = run, host, log, folder, stop
        self._pieces: queue.Queue[Piece] = queue.Queue(maxsize=64)
        self._parsers: dict[str, NanochatLog] = {}
        self._held: dict[str, list[bytes]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._known, self._checkpoints = _written(run)
        self._events = EventWriter(run.events, run=run.id, attempt=int(os.environ.get(ATTEMPT) or 1))

    def work(self) -> int:
        """The exit code."""
        for old in self._run.logs.glob("*.log"):
            old.unlink()  # they are written anew from the log's beginning
        self._events.emit("run", {"state": "started", "recipe": ATTACHED, "stages": [], "pid": os.getpid(),
                                  "host": os.uname().nodename})
        try:
            fault = self._follow()
        except RemoteError as error:
            fault = str(error)
        if fault:
            print(fault, file=sys.stderr, flush=True)
            self._events.alert("error", "attached", fault, "attach again when that is mended")
            self._events.emit("run", {"state": "failed", "exit_code": 1, "reason": fault})
            return 1
        self._events.emit("run", {"state": "stopped", "exit_code": EXIT_STOPPED, "reason": "not followed any more"})
        return EXIT_STOPPED

    def _follow(self) -> str:
        """Until `stop`, or until no log can be followed any more: then why."""
        if self._log:
            self._read(self._log)
        looked, faults = 0.0, list[str]()
        while not self._stop.is_set():
            if self._folder and time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                with suppress(NoSuchFile, RemoteError):
                    self._look()
            with suppress(queue.Empty):
                piece = self._pieces.get(timeout=0.2)
                if piece.error is not None:
                    faults.append(f"{piece.source}: {piece.error}")
                    if len(faults) == len(self._parsers):
                        return faults[-1]
                else:
                    self._take(piece)
        return ""

    def _look(self) -> None:
        """New logs and new checkpoints in the folder."""
        names = self._host.listdir(self._folder)
        for name in names:
            if name.endswith((".log", ".txt")) and f"{self._folder}/{name}" not in self._parsers:
                self._read(f"{self._folder}/{name}")
        for kind in (name for name in names if name in SOURCES):
            for tag in self._host.listdir(f"{self._folder}/{kind}"):
                self._look_at(f"{self._folder}/{kind}/{tag}", *SOURCES[kind], tag)

    def _look_at(self, folder: str, source: str, stage: str, tag: str) -> None:
        for name in self._host.listdir(folder):
            model = _MODEL.fullmatch(name)
            if model is None or (folder, int(model[1])) in self._checkpoints:
                continue
            found = self._host.stat(f"{folder}/{name}")
            data = {"source": source, "tag": tag, "dir": folder, "files": [name], "bytes": found.size if found else 0}
            self._checkpoints.add((folder, int(model[1])))
            self._events.emit("checkpoint", data, step=int(model[1]), stage=_ORDER[stage])

    def _read(self, path: str) -> None:
        first = next((stage for stage in TITLES if stage in Path(path).name), None)
        self._parsers[path], self._held[path] = NanochatLog(first), []
        threading.Thread(target=self._reader, args=(path,), name="attached", daemon=True).start()

    def _reader(self, path: str) -> None:
        try:
            for data in self._host.follow(path, 0, self._stop):
                self._pieces.put(Piece(path, data))
        except FileReplaced:
            self._pieces.put(Piece(path, error=FileReplaced("the log was replaced by another one: another run began")))
        except (HostRefused, RemoteError, OSError) as error:
            self._pieces.put(Piece(path, error=error))

    def _take(self, piece: Piece) -> None:
        """Events of a piece, and its lines into the log of the stage that they belong to."""
        parser, held = self._parsers[piece.source], self._held[piece.source]
        for line in piece.data.splitlines(keepends=True):
            held.append(line)
            for found in parser.feed(line):
                self._write(piece.source, found)
            if parser.stage is not None:
                self._log_of(parser.stage).writelines(held)
                held.clear()
        for file in self._files.values():
            file.flush()

    def _write(self, source: str, found: Found) -> None:
        if self._known[source] > 0:
            self._known[source] -= 1  # written before we were started again
            return
        data = {**found.data, "src": source}
        if found.kind == "checkpoint":
            self._checkpoints.add((str(data["dir"]), found.step or 0))
            data["bytes"] = self._size(data["dir"], data["files"])
        stage = _ORDER.get(found.stage or "", found.stage)
        if found.kind == "stage" and found.data["state"] == "started":
            data["index"] = list(_ORDER).index(found.stage or "") + 1 if found.stage in _ORDER else 0
            data["log"] = f"logs/{stage}.log"
        self._events.emit(found.kind, data, step=found.step, stage=stage)

    def _size(self, folder: str, names: list[str]) -> int:
        """Bytes of a checkpoint's files as they are over there now; 0 for those that cannot be seen."""
        found = 0
        for name in names:
            with suppress(RemoteError, OSError):
                stat = self._host.stat(f"{folder}/{name}")
                found += stat.size if stat else 0
        return found

    def _log_of(self, stage: str) -> BinaryIO:
        name = _ORDER.get(stage, stage)
        if name not in self._files:
            self._files[name] = open(self._run.stage_log(name), "ab")  # noqa: SIM115 - open as long as we follow
        return self._files[name]


def _written(run: RunDir) -> tuple[Counter[str], set[tuple[str, int]]]:
    """How many events of each log are in the folder already, and which checkpoints."""
    counts: Counter[str] = Counter()
    checkpoints: set[tuple[str, int]] = set()
    data = run.events.read_bytes() if run.events.exists() else b""
    for line in split_lines(data)[0]:
        event = parse_line(line)
        if event is None:
            continue
        if isinstance(event.data.get("src"), str):
            counts[event.data["src"]] += 1
        if event.kind == "checkpoint":
            checkpoints.add((str(event.data.get("dir")), event.step or 0))
    return counts, checkpoints


def main(argv: list[str]) -> int:
    from console.machines.hosts import Hosts

    run, stop = RunDir(Path(argv[0])), threading.Event()
    what = run.read()[ATTACHED]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for folder in (run.logs, run.job):
        folder.mkdir(parents=True, exist_ok=True)
    hosts = Hosts()
    try:
        return Follower(run, hosts.get(what["target"]), what["log"], what["dir"], stop).work()
    finally:
        hosts.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

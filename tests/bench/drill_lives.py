"""The lives that tests/bench/drill_kills.py kills: what each does, and what the next start must find and heal.

Nothing here knows where it is killed. A life has a folder of its own; its times are its step numbers where rows are
to be compared.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import kill_points  # noqa: E402

from console.machines import preparing  # noqa: E402
from console.rental import steps  # noqa: E402
from console.rental.rental import Phase  # noqa: E402
from console.runlog import ingest  # noqa: E402
from console.runlog.db import open_reader  # noqa: E402
from console.runstate import RESUMABLE, Word  # noqa: E402
from console.settings import RentSettings  # noqa: E402
from console.workspace import Workspace  # noqa: E402
from engine import rundir  # noqa: E402
from engine.pipeline import Supervisor  # noqa: E402
from engine.rundir import RunDir  # noqa: E402
from remote import bootstrap, job, job_runner  # noqa: E402
from remote.fake_runpod.cloud import FakeCloud  # noqa: E402
from remote.fake_runpod.server import FakeRunPod  # noqa: E402
from remote.local import LocalHost  # noqa: E402

STAGES = ("01-tok_train", "02-base_train", "03-report")

# What a supervisor does as far as a console can see; its times are its step numbers, so that rows can be compared.
STAND_IN = """
import json, os, signal, sys, time
run, attempt = sys.argv[1], int(os.environ["LLMCONSOLE_ATTEMPT"])
with open(run + "/starts", "a") as f:
    f.write(f"{attempt}\\n")
path = run + "/events.jsonl"
if os.path.exists(path):
    data = open(path, "rb").read()
    os.truncate(path, data.rfind(b"\\n") + 1)
seq = sum(1 for _ in open(path)) if os.path.exists(path) else 0
def emit(kind, data, stage="01-base_train", step=None):
    global seq
    seq += 1
    row = dict(v=1, seq=seq, t=100.0 * attempt + seq, mono=0, run="only", attempt=attempt, stage=stage, kind=kind,
               step=step, data=data)
    f = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(f, json.dumps(row).encode() + b"\\n")
    os.close(f)
def leave(state, code):
    emit("stage", dict(state=state, exit_code=code))
    emit("run", dict(state=state, exit_code=code), None)
    sys.exit(code)
signal.signal(signal.SIGTERM, lambda *_: leave("stopped", 75))
emit("run", dict(state="started"), None)
emit("stage", dict(state="started", index=1, title="T"))
for step in range(5):
    emit("metric", dict(loss=2.0 - step / 10 + attempt, lrm=1.0), step=step)
if attempt == 1:
    open(run + "/waits", "w").close()
    time.sleep(20)
leave("finished", 0)
"""
# One stage of the real supervisor.
STAGE = """
import os, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from pathlib import Path
from engine.events import EventWriter
run, stage, attempt = Path(sys.argv[2]), sys.argv[3], os.environ["LLMCONSOLE_ATTEMPT"]
def note(word):
    with open(run / "starts", "a") as f:
        f.write(f"{stage} {attempt} {word}\\n")
note("begin")
writer = EventWriter(run / "events.jsonl", run=run.name, attempt=int(attempt), stage=stage)
for step in range(4):
    writer.metric(step, loss=1.0 + step)
note("end")
"""


class Scenario:
    """One life in a folder of its own: `work` is what is killed, `heal` the next start, which returns what to compare.

    `roles` name the processes in the order in which they are made; later ones are not killed.
    """

    roles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ.update(LLMCONSOLE_HOME=str(folder / "home"), NANOCHAT_BASE_DIR=str(folder / "base"))
        os.environ.pop("LLMCONSOLE_ATTEMPT", None)
        self.run = RunDir(folder / "base" / "runs" / "only")

    def work(self) -> None:
        raise NotImplementedError

    def heal(self, killed: str) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Let nothing be alive afterwards."""
        if self.run.job.exists():
            job.stop(LocalHost(), str(self.run.job), 0)


class Console(Scenario):
    """A person starts a run, watches it, stops it, resumes it and waits for its end; all of it again after a kill."""

    roles = ("console", "probe", "launcher", "fork of the launcher", "keeper", "command")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        recipes = folder / "home" / "recipes"
        recipes.mkdir(parents=True)
        (recipes / "short.toml").write_text('title = "T"\ndisk_gb = 0.001\n[minutes]\ncpu = 1\n[[stage]]\n'
                                            'stage = "base_train"\ndepth = 4\n')
        (folder / "stand_in.py").write_text(STAND_IN)

    def _open(self) -> Workspace:
        script = str(self.folder / "stand_in.py")
        return Workspace.open(patience=2, pipeline=lambda python, run: [sys.executable, "-I", "-S", script, run])

    def work(self) -> None:
        with self._open() as workspace:
            self._evening(workspace)

    def _evening(self, workspace: Workspace) -> None:
        operator, until = workspace.operator, time.monotonic() + 20
        waits = self.run.path / "waits"
        if not self._is_known(workspace):
            operator.start(operator.plan("short", run_id="only"))
        while time.monotonic() < until:
            workspace.ingest()
            run = workspace.queries.run("only")
            quiet = time.monotonic() > until - 19.5  # half a second without an end: ask the machine
            if run is not None and run.attempt == 1 and run.reported == "started" and waits.exists():
                waits.unlink()
                workspace.ingest()
                operator.stop("only")
            elif (run is not None and run.reported in ("finished", "stopped", "failed")) or quiet:
                word = operator.state("only", tail=False, fresh=True).word
                if word is Word.FINISHED:
                    return
                if word in RESUMABLE:
                    operator.resume("only")
                elif word in (Word.RUNNING, Word.STALE) and not waits.exists() and run and run.attempt == 1:
                    operator.stop("only")  # the one who had removed the mark was killed before it stopped the run
            time.sleep(0.01)

    def _is_known(self, workspace: Workspace) -> bool:
        return bool(workspace.operator.ledger.intents("only"))

    def heal(self, killed: str) -> Any:
        with self._open() as workspace:
            assert not [text for text in workspace.notices if "damaged" in text or "Could not" in text], \
                workspace.notices
            self._evening(workspace)
            state = workspace.operator.state("only", fresh=True)
            assert state.word is Word.FINISHED, state
            workspace.ingest()
            assert workspace.operator.ledger.pending() == []
            launches = [intent for intent in workspace.operator.ledger.intents("only")
                        if intent.action in ("start", "resume")]
        starts = (self.run.path / "starts").read_text().split()
        assert len(set(starts)) == len(starts), f"an attempt began twice: {starts}"
        assert len(starts) <= len(launches), (starts, launches)
        with self._open() as again:
            assert again.notices == [], again.notices
        rows = rows_as_in_the_file(self.folder / "home", self.run)
        state_files(self.folder)
        litter = {path.name for path in (self.folder / "home").iterdir()} - {
            "recipes", "runlog.db", "ledger.db", "writer.lock", "targets.json"}
        assert not {name for name in litter if not name.endswith(("-wal", "-shm", ".bak"))}, litter
        return rows if starts == ["1", "2"] and killed not in ("keeper", "command") else None


class Following(Scenario):
    """The follower's thread reads a file of events in small transactions while the console is open."""

    roles = ("follower",)
    TEXT: ClassVar[bytes] = b""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        about = {"v": 1, "run": "only", "recipe": "tiny", "title": "T", "created": 1.0,
                 "stages": [{"id": "01-base_train", "stage": "base_train", "title": "B", "args": {"depth": 4}}]}
        rundir.create(folder / "base", "only", about)
        self.run.events.write_bytes(_events(60) + b'{"v":1,"seq":10')

    def work(self) -> None:
        ingest.BATCH_ROWS = 12
        with Workspace.open(patience=2) as workspace:
            follower = workspace.follow()
            size, until = len(_events(60)), time.monotonic() + 20
            while time.monotonic() < until and not follower.problem:
                with suppress(sqlite3.Error):
                    row = workspace.queries.connection().execute("SELECT offset FROM sources").fetchone()
                    if row and row[0] == size:
                        return
                time.sleep(0.01)

    def heal(self, killed: str) -> Any:
        self.run.events.write_bytes(self.run.events.read_bytes()[:-len(b'{"v":1,"seq":10')] + _events(70, 60))
        with Workspace.open(patience=2) as workspace:
            assert workspace.notices == [], workspace.notices
            workspace.ingest()
        state_files(self.folder)
        return rows_as_in_the_file(self.folder / "home", self.run)


class Launching(Scenario):
    """A launch of a job, asked of the runner itself; the command says that it began, and goes on a little."""

    roles = ("launcher", "fork of the launcher", "keeper", "command")
    COMMAND: ClassVar[list[str]] = ["sh", "-c", "echo $LLMCONSOLE_ATTEMPT >> ../starts; echo out; sleep 0.02"]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run.job.mkdir(parents=True)

    def work(self) -> None:
        job_runner.launch(self.run.job, 1, self._request(1))

    def _request(self, attempt: int) -> dict[str, Any]:
        return {"argv": self.COMMAND, "env": {"LLMCONSOLE_ATTEMPT": str(attempt)}}

    def _again(self, attempt: int) -> job.JobState:
        host, folder = LocalHost(), str(self.run.job)
        job.launch(host, folder, attempt, self.COMMAND, {"LLMCONSOLE_ATTEMPT": str(attempt)})
        until = time.monotonic() + 20
        while (found := job.state(host, folder)).state == "running":
            assert time.monotonic() < until, found
            time.sleep(0.01)
        return found

    def heal(self, killed: str) -> Any:
        first = self._again(1)
        assert first.state in ("exited", "lost"), first
        began = self._starts().count("1")
        assert began == 1 if first.code == 0 else began <= 1, (began, first)
        if killed in ("launcher", "fork of the launcher", ""):
            assert (first.state, first.code, began) == ("exited", 0, 1), (first, began)
        second = self._again(2)
        assert (second.state, second.code, self._starts().count("2")) == ("exited", 0, 1), second
        state_files(self.folder)
        assert not list(self.run.job.glob(".*")), list(self.run.job.glob(".*"))

    def _starts(self) -> list[str]:
        path = self.run.path / "starts"
        return path.read_text().split() if path.exists() else []


class Stopping(Launching):
    """A command that does not listen is launched and stopped with a short grace; then it is not there any more."""

    COMMAND: ClassVar[list[str]] = ["sh", "-c", "trap '' TERM; echo $LLMCONSOLE_ATTEMPT >> ../starts; sleep 30 & "
                                    "sleep 30"]

    def work(self) -> None:
        super().work()
        until = time.monotonic() + 5
        while not self._starts() and self._runs() and time.monotonic() < until:
            time.sleep(0.005)
        job_runner.stop(self.run.job, 0.05)
        while self._runs() and time.monotonic() < until:
            time.sleep(0.01)

    def _runs(self) -> bool:
        return bool(job_runner.state(self.run.job)["state"] == "running")

    def heal(self, killed: str) -> Any:
        host, folder = LocalHost(), str(self.run.job)
        job.launch(host, folder, 1, self.COMMAND, {"LLMCONSOLE_ATTEMPT": "1"})
        ended = job.stop(host, folder, 0.05)
        assert ended.state in ("exited", "lost"), ended
        assert self._starts().count("1") <= 1, self._starts()
        state_files(self.folder)


class Supervising(Scenario):
    """The real supervisor with three stages; killed, it is started again as the launcher would, as the next attempt."""

    roles = ("supervisor", "stage 1", "stage 2", "stage 3")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        rows = [{"id": name, "stage": name[3:], "title": name, "args": {}} for name in STAGES]
        rundir.create(folder / "base", "only", {"v": 1, "run": "only", "recipe": "r", "title": "T", "created": 1.0,
                                                "stages": rows})
        (folder / "stage.py").write_text(STAGE)

    def work(self) -> None:
        def build(step: Any) -> list[str]:
            return [sys.executable, "-I", "-S", str(self.folder / "stage.py"), str(ROOT), str(self.run.path), step.id]

        os._exit(Supervisor(self.run, build, sample_every=1e6).run())

    def heal(self, killed: str) -> Any:
        done = {name for name in STAGES if self.run.done_mark(name).exists()}
        before = self._notes()
        code = kill_points.run(self.work).code if done != set(STAGES) or killed == "supervisor" else 0
        assert code == 0, f"the second attempt ended with {code}"
        notes = self._notes()
        begun = Counter(note for note in notes if note.endswith("begin"))
        assert all(count == 1 for count in begun.values()), begun
        again = {note.split()[0] for note in notes[len(before):]}
        assert not again & done, f"finished stages were run again: {again & done}"
        assert all(self.run.done_mark(name).exists() for name in STAGES)
        seqs = [json.loads(line)["seq"] for line in self.run.events.read_bytes().splitlines()]
        assert seqs == list(range(1, len(seqs) + 1)), "the events' numbers have a gap"
        with Workspace.open(patience=2) as workspace:
            workspace.ingest()
            run = workspace.queries.run("only")
            assert run is not None and run.reported == "finished" and run.stages_done == 3, run
        rows_as_in_the_file(self.folder / "home", self.run)
        state_files(self.folder)

    def _notes(self) -> list[str]:
        path = self.run.path / "starts"
        return path.read_text().splitlines() if path.exists() else []


class Evening(Scenario):
    """A rented life, from the decision to the confirmed end, against the provider's double, whose pods are real."""

    roles = ("console",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "home" / "recipes").mkdir(parents=True)
        (folder / "home" / "recipes" / "short.toml").write_text(
            'title = "T"\ndisk_gb = 0.001\n[minutes]\ngpu = 1\n[[stage]]\nstage = "base_train"\n')
        (folder / "stand_in.py").write_text(STAND_IN.replace("if attempt == 1:", "if False:"))
        steps.PACE, steps.SETTLE_S = 0.05, 3.0
        bootstrap.bootstrap, preparing.has_libraries = lambda *_, **__: (sys.executable,), lambda *_: True
        self.cloud = FakeCloud(folder / "cloud", placing_s=0.1, pulling_s=0.1)
        self.server = FakeRunPod(self.cloud)
        os.environ.update(RUNPOD_API_KEY=self.server.key, LLMCONSOLE_RUNPOD_API=self.server.base)

    def work(self) -> None:
        script = str(self.folder / "stand_in.py")
        pipeline = lambda python, run: [sys.executable, "-I", "-S", script, run]  # noqa: E731
        with Workspace.open(patience=2, pipeline=pipeline) as workspace:
            rentals, until = workspace.operator.rentals, time.monotonic() + 50
            rentals.sweep()
            if not rentals.book.all():
                rentals.rent(rentals.quote("short", run_id="only", settings=RentSettings(gpus="2xA100"), budget_usd=20,
                                           budget_hours=1))
            rentals.drive(rentals.book.all()[0].id, lambda _: time.monotonic() > until, lambda _: None)
            workspace.ingest()

    def heal(self, killed: str) -> Any:
        if killed:
            self.work()
        with Workspace.open(patience=2) as workspace:
            (rental,) = workspace.operator.rentals.book.all()
            state, swept = workspace.operator.state("only"), workspace.operator.rentals.sweep()
        assert not [life for life in self.cloud.lives.values() if life.ended is None], "a pod bills"
        assert (swept.reopened, swept.strays) == ((), ()), swept
        state_files(self.folder / "home")
        if rental.phase is Phase.NEVER:
            assert self.cloud.creates == 0, "the ledger knows nothing of a pod that was made"
            return None
        assert rental.phase is Phase.GONE and self.cloud.creates == 1, (rental, self.cloud.creates)
        assert state.word is Word.FINISHED, state
        events = self.folder / "home" / "mirror" / "only" / "events.jsonl"
        starts = [row for row in map(json.loads, events.read_text().splitlines()) if row["kind"] == "run"]
        assert [row["data"]["state"] for row in starts] == ["started", "finished"], starts
        return rows_as_in_the_file(self.folder / "home", RunDir(events.parent))

    def close(self) -> None:
        self.server.close()


SCENARIOS: dict[str, type[Scenario]] = {
    "console": Console, "follower": Following, "launcher": Launching, "stop": Stopping, "supervisor": Supervising}
BY_NAME_ONLY: dict[str, type[Scenario]] = {"evening": Evening}


def _events(last: int, first: int = 0) -> bytes:
    """Lines as a stage writes them, with times that are their numbers; after `first` the rest of a torn one."""
    rows = []
    for number in range(first, last):
        kind, data = ("metric", {"loss": 4 - number / 100, "lrm": 1.0}) if number % 5 else (
            "eval", {"val_bpb": 1 - number / 1000})
        rows.append(json.dumps({"v": 1, "seq": number, "t": float(number), "mono": 0.0, "run": "only", "attempt": 1,
                                "stage": "01-base_train", "kind": kind, "step": number, "data": data}) + "\n")
    return "".join(rows).encode()


def rows_as_in_the_file(home: Path, run: RunDir) -> Any:
    """Every row of the run log that a file of events leads to, compared with the file itself, read by other code."""
    reader = open_reader(home / "runlog.db")
    try:
        points = sorted(reader.execute("SELECT stage, name, attempt, step, t, value FROM metrics").fetchall())
        events = sorted(map(str, reader.execute("SELECT attempt, t, kind, stage, step, data FROM events").fetchall()))
        offset = reader.execute("SELECT offset, damaged_lines FROM sources").fetchone()
        tables = {name: reader.execute(f"SELECT * FROM {name}").fetchall() for name in ("series", "stages")}
    finally:
        reader.close()
    data = run.events.read_bytes()
    told = [json.loads(line) for line in data.splitlines()]
    numbers = sorted((row["stage"] or "", name, row["attempt"], row["step"], row["t"], float(value)) for row in told
                     if row["kind"] in ("metric", "eval", "system") for name, value in row["data"].items()
                     if isinstance(value, (int, float)) and not isinstance(value, bool))
    assert points == numbers, f"{len(points)} points in the run log, {len(numbers)} in the file"
    others = [row for row in told if row["kind"] != "metric" and row["data"].get("state") != "progress"]
    assert len(events) == len(others), f"{len(events)} events in the run log, {len(others)} in the file"
    assert offset == (len(data), 0), (offset, len(data))
    return [points, events, tables]


def state_files(folder: Path) -> None:
    """Every file that something is read from again is whole."""
    for path in folder.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in folder.glob("home/*.db"):
        reader = sqlite3.connect(path)
        found = reader.execute("PRAGMA integrity_check").fetchone()
        reader.close()
        assert found == ("ok",), (path, found)

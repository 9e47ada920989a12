"""Every complete line reaches the run log exactly once: torn lines, replays, kills, replaced files, foreign garbage."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.runlog import ingest as ingest_module
from console.runlog.db import open_reader
from console.workspace import Workspace
from engine.events import EventWriter
from engine.rundir import RunDir

MakeRun = Callable[..., tuple[RunDir, EventWriter]]
STAGE = "01-base_train"


def write_events(writer: EventWriter, count: int, first: int = 0) -> None:
    """A life in miniature: metrics, now and then something else."""
    if first == 0:
        writer.emit("run", {"state": "started", "recipe": "tiny", "title": "Tiny"}, stage=None)
        writer.emit("stage", {"state": "started", "index": 1, "title": "Base", "log": "logs/x.log"})
    for step in range(first, first + count):
        writer.metric(step, loss=4.0 - step / 100, lrm=1.0)
        if step % 10 == 0:
            writer.evaluation(step, val_bpb=1.0 - step / 1000)
            writer.progress(step, 100, "steps", 1.5)
        if step % 25 == 0:
            facts = {"source": "base", "tag": "d4", "dir": "x", "bytes": 9, "manifest": "m"}
            writer.emit("checkpoint", facts, step=step)


def points_in_file(run: RunDir) -> list[tuple[str, int, float]]:
    """The oracle: the file itself, read by ten lines of other code."""
    found = []
    for line in run.events.read_bytes().split(b"\n")[:-1]:
        row = json.loads(line)
        if row["kind"] in ("metric", "eval"):
            found += [(name, row["step"], value) for name, value in row["data"].items()]
    return sorted(found)


def points_in_log(path: Path) -> list[tuple[str, int, float]]:
    reader = open_reader(path)
    try:
        return sorted(reader.execute("SELECT name, step, value FROM metrics").fetchall())
    finally:
        reader.close()


def dump(path: Path) -> dict[str, list[Any]]:
    """Every row of every table."""
    reader = open_reader(path)
    try:
        tables = [row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: reader.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
    finally:
        reader.close()


def test_what_is_in_the_file_is_in_the_log(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    write_events(writer, 100)
    assert workspace.ingest() == 2 + 100 + 10 + 10 + 4
    assert points_in_log(workspace.home.runlog) == points_in_file(run)
    queries = workspace.queries
    (row,) = queries.runs()
    assert (row.id, row.recipe, row.stages_total) == ("tiny-1", "tiny", 1)
    assert (row.reported, row.last_stage) == ("started", STAGE)
    (stage,) = queries.stages("tiny-1")
    assert (stage.state, stage.done, stage.total, stage.unit, stage.fraction) == ("started", 90, 100, "steps", 0.9)
    assert stage.args == {"depth": 4}
    assert queries.metric_names("tiny-1", STAGE) == ["loss", "lrm", "val_bpb"]
    assert queries.metric_names("tiny-1", source="eval") == ["val_bpb"]
    latest = queries.latest_metrics("tiny-1", STAGE)["loss"]
    assert (latest.step, latest.value, latest.count) == (99, pytest.approx(3.01), 100)
    assert [c.step for c in queries.checkpoints("tiny-1")] == [75, 50, 25, 0]
    values = [e.values["val_bpb"] for e in queries.evals("tiny-1")]
    assert values == pytest.approx([1 - step / 1000 for step in range(0, 100, 10)])


def test_reading_again_changes_nothing(workspace: Workspace, make_run: MakeRun) -> None:
    _, writer = make_run()
    write_events(writer, 50)
    workspace.ingest()
    before = dump(workspace.home.runlog)
    assert workspace.ingest() == 0
    assert dump(workspace.home.runlog) == before


def test_a_torn_line_is_not_yet(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    write_events(writer, 3)
    whole = run.events.read_bytes()
    for cut in range(len(whole) - 90, len(whole)):
        run.events.write_bytes(whole[:cut])
        workspace.ingest()
        assert points_in_log(workspace.home.runlog) == points_in_file(run)
    with open(run.events, "wb") as f:
        f.write(whole)
    workspace.ingest()
    assert points_in_log(workspace.home.runlog) == points_in_file(run)


@pytest.mark.parametrize("seed", range(4))
def test_pieces_give_the_same_log_as_the_whole(tmp_path: Path, make_run: MakeRun, seed: int) -> None:
    run, writer = make_run()
    write_events(writer, 120)
    whole = run.events.read_bytes()
    with Workspace.open(tmp_path / "at-once") as at_once:
        at_once.ingest()
        expected = dump(at_once.home.runlog)
    rng = random.Random(seed)
    cuts = [*sorted(rng.sample(range(len(whole)), 12)), len(whole)]
    with Workspace.open(tmp_path / "pieces") as pieces:
        run.events.write_bytes(b"")
        for start, end in zip([0, *cuts], cuts, strict=False):
            with open(run.events, "ab") as f:
                f.write(whole[start:end])
            pieces.ingest()
        assert dump(pieces.home.runlog) == expected


def test_kill_9_at_any_moment_loses_and_doubles_nothing(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, writer = make_run()
    monkeypatch.setattr(ingest_module, "BATCH_ROWS", 7)
    rng, home = random.Random(1), Path(os.environ["LLMCONSOLE_HOME"])
    for round_number in range(20):
        write_events(writer, 40, first=40 * round_number)
        opened, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with Workspace.open(patience=5) as workspace:
                    os.write(tell, b"x")
                    while True:
                        workspace.ingest()
            finally:
                os._exit(1)
        if round_number % 2:  # every other one dies while it opens, or after
            os.read(opened, 1)
        time.sleep(rng.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(opened)
        os.close(tell)
        if round_number % 5 == 4:
            assert set(points_in_log(home / "runlog.db")) <= set(points_in_file(run))
    with Workspace.open() as workspace:
        assert workspace.notices == []
        workspace.ingest()
        assert points_in_log(workspace.home.runlog) == points_in_file(run)


def test_a_reader_opens_what_a_killed_writer_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "hot.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE a (x)")
    connection.close()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("PRAGMA cache_size=5")  # so that uncommitted pages reach the file
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany("INSERT INTO a VALUES (?)", [("x" * 500,)] * 3000)
        os.write(tell, b"x")
        time.sleep(60)
    os.read(told, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.with_name("hot.db-journal").exists()
    reader = open_reader(path)
    assert reader.execute("SELECT count(*) FROM a").fetchone() == (0,)
    reader.close()


def test_a_replaced_file_is_read_from_its_start(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    write_events(writer, 30)
    workspace.ingest()
    run.events.unlink()
    fresh = EventWriter(run.events, run=run.id, stage=STAGE)
    write_events(fresh, 5)
    workspace.ingest()
    assert points_in_log(workspace.home.runlog) == points_in_file(run)


def test_a_cut_file_is_read_from_its_start(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    write_events(writer, 30)
    workspace.ingest()
    whole = run.events.read_bytes()
    os.truncate(run.events, whole.index(b"\n", len(whole) // 2) + 1)
    workspace.ingest()
    assert points_in_log(workspace.home.runlog) == points_in_file(run)


def test_a_lost_run_log_is_rebuilt_from_the_run_folders(workspace: Workspace, make_run: MakeRun) -> None:
    for number in range(3):
        _, writer = make_run(f"tiny-{number}", created=float(number))
        write_events(writer, 10)
    workspace.ingest()
    before, home = workspace.queries.runs(), workspace.home
    workspace.close()
    for path in home.path.glob("runlog.db*"):
        path.unlink()
    with Workspace.open() as again:
        again.ingest()
        assert again.queries.runs() == before


def test_a_damaged_run_log_is_kept_and_rebuilt(workspace: Workspace, make_run: MakeRun) -> None:
    _, writer = make_run()
    write_events(writer, 300)
    workspace.ingest()
    before, home = dump(workspace.home.runlog)["points"], workspace.home
    workspace.close()
    data = bytearray(home.runlog.read_bytes())
    data[4096 : len(data) - 4096] = b"\x00" * (len(data) - 8192)
    home.runlog.write_bytes(data)
    with Workspace.open() as again:
        assert "damaged" in again.notices[0] and "rebuilt" in again.notices[0]
        again.ingest()
        assert dump(home.runlog)["points"] == before
    assert len(list(home.path.glob("runlog.db.damaged-*"))) >= 1


def test_foreign_and_damaged_lines_cost_only_themselves(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    write_events(writer, 5)
    row = json.loads(run.events.read_bytes().split(b"\n")[2])
    hostile = [b"not json", b"{}", b"[1,2]", b"\xff\xfe", b'{"v":1}', b"[" * 100_000,
               json.dumps({**row, "data": {"loss": "x", "y": [1], "z": True, "big": 10**400}}).encode(),
               json.dumps({**row, "step": 10**30}).encode(), json.dumps({**row, "step": "five"}).encode(),
               json.dumps({**row, "kind": "stage", "data": {"state": "started", "index": "x"}}).encode(),
               json.dumps({**row, "kind": "run", "data": {"state": "started", "stages": [7]}}).encode(),
               json.dumps({**row, "kind": "system", "data": {"gpus": [1, None]}}).encode(),
               json.dumps({**row, "kind": "from-the-future", "data": {"a": 1}}).encode()]
    with open(run.events, "ab") as f:
        f.write(b"\n".join(hostile) + b"\n")
    writer.metric(99, loss=1.25)
    workspace.ingest()
    assert workspace.queries.latest_metrics(run.id, STAGE)["loss"].value == 1.25
    assert [e.kind for e in workspace.queries.events(run.id, kinds=("from-the-future",))] == ["from-the-future"]


def test_non_finite_values_arrive(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    for step, value in enumerate((1.0, math.nan, math.inf, -math.inf)):
        writer.metric(step, loss=value)
        writer.evaluation(step, val_bpb=value)
    workspace.ingest()
    latest = workspace.queries.latest_metrics(run.id, STAGE)
    assert latest["loss"].value == -math.inf
    values = [e.values["val_bpb"] for e in workspace.queries.evals(run.id)]
    assert values[0] == 1.0 and math.isnan(values[1]) and values[2:] == [math.inf, -math.inf]


def test_a_later_attempt_starts_the_stage_anew_and_keeps_what_was_done(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run(stages=("tok_train", "base_train"))
    writer.emit("run", {"state": "started"})
    for state in ("started", "finished"):
        writer.emit("stage", {"state": state, "seconds": 3.0}, stage="01-tok_train")
    writer.emit("stage", {"state": "started"}, stage="02-base_train")
    writer.emit("stage", {"state": "failed", "exit_code": 1}, stage="02-base_train")
    writer.emit("run", {"state": "failed", "exit_code": 1, "reason": "Base: exit 1"})
    workspace.ingest()
    assert [s.state for s in workspace.queries.stages(run.id)] == ["finished", "failed"]
    second = EventWriter(run.events, run=run.id, attempt=2)
    second.emit("run", {"state": "started"})
    second.emit("stage", {"state": "skipped"}, stage="01-tok_train")
    second.emit("stage", {"state": "started", "resumed": True}, stage="02-base_train")
    workspace.ingest()
    tok, base = workspace.queries.stages(run.id)
    assert (tok.state, tok.seconds) == ("finished", 3.0)
    assert (base.state, base.exit_code, base.resumed, base.attempt) == ("started", None, True, 2)
    row = workspace.queries.run(run.id)
    assert row and (row.reported, row.exit_code, row.attempt, row.stages_done) == ("started", None, 2, 1)


def test_a_line_longer_than_a_chunk_is_read(workspace: Workspace, make_run: MakeRun) -> None:
    run, writer = make_run()
    writer.emit("sample", {"prompt": "p", "text": "x" * (3 << 20)})
    writer.metric(1, loss=2.0)
    workspace.ingest()
    assert len(workspace.queries.samples(run.id)[0].text) == 3 << 20
    assert workspace.queries.latest_metrics(run.id, STAGE)["loss"].step == 1


def test_the_follower_sees_what_comes_and_stops_at_once(workspace: Workspace, make_run: MakeRun,
                                                        wait_until: Callable[..., Any]) -> None:
    changed: list[frozenset[str]] = []
    follower = workspace.follow(changed.append)
    run, writer = make_run()
    follower.watch(run.id)
    write_events(writer, 20)
    wait_until(lambda: "loss" in workspace.queries.latest_metrics(run.id, STAGE))
    writer.metric(500, loss=0.5)
    wait_until(lambda: workspace.queries.latest_metrics(run.id, STAGE)["loss"].step == 500)
    assert frozenset({run.id}) in changed
    begun = time.monotonic()
    follower.stop()
    assert time.monotonic() - begun < 0.3
    assert not follower.is_alive()


def test_the_follower_says_what_keeps_it_from_reading(workspace: Workspace, make_run: MakeRun,
                                                      monkeypatch: pytest.MonkeyPatch,
                                                      wait_until: Callable[..., Any]) -> None:
    make_run()

    def full(*_: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(ingest_module.Ingest, "run", full)
    told: list[frozenset[str]] = []
    follower = workspace.follow(told.append)
    assert "disk is full" in wait_until(lambda: follower.problem)
    monkeypatch.undo()
    follower.watch("tiny-1")
    wait_until(lambda: not follower.problem)
    assert told

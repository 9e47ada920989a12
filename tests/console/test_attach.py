"""A run of nanochat itself, followed from its console log, is a run like any other; restarts add nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console.attached import Follower, description
from console.attaching import attach
from console.errors import NotFound, Refused, UsageProblem
from console.workspace import Workspace
from engine.events import parse_line
from engine.rundir import RunDir, create
from remote.local import LocalHost

LINES = """Vocab size: 1,024
Total batch size 512 => gradient accumulation steps: 2
Step 00000 | Validation bpb: 2.4601
step 00000/00060 (0.00%) | loss: 6.931472 | lrm: 1.00 | dt: 123.94ms | tok/sec: 4,130 | mfu: 0.00 | total time: 0.00m
step 00001/00060 (1.67%) | loss: 6.900908 | lrm: 1.00 | dt: 63.79ms | tok/sec: 8,026 | mfu: 0.00 | total time: 0.00m
"""
LATER = ("step 00002/00060 (3.33%) | loss: 6.8 | lrm: 1.00 | dt: 47.70ms | mfu: 0.00\n"
         "2025-12-08 10:00:09,301 - nanochat.checkpoint_manager - INFO - Saved optimizer state to: "
         "/w/base_checkpoints/d2/optim_000060_rank0.pt\n")


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def follow(run: RunDir, log: Path, enough: Callable[[list[str]], bool]) -> list[str]:
    stop = threading.Event()
    follower = Follower(run, LocalHost(poll=0.01), str(log), "", stop)
    thread = threading.Thread(target=follower.work)
    thread.start()

    def kinds() -> list[str]:
        data = run.events.read_bytes() if run.events.exists() else b""
        events = [parse_line(line) for line in data.split(b"\n")[:-1]]
        return [f"{event.kind}:{event.step}" for event in events if event and event.kind in ("metric", "checkpoint")]

    until(lambda: enough(kinds()))
    stop.set()
    thread.join(5)
    return kinds()


def test_started_again_it_adds_only_what_is_new(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(LINES)
    run = create(tmp_path, "a", description("a", "local", "t", str(log), ""))
    assert follow(run, log, lambda kinds: len(kinds) == 2) == ["metric:0", "metric:1"]
    assert run.stage_log("04-base_train").read_text() == LINES
    with open(log, "a") as f:
        f.write(LATER)
    assert follow(run, log, lambda kinds: len(kinds) == 4) == ["metric:0", "metric:1", "metric:2", "checkpoint:60"]
    assert run.stage_log("04-base_train").read_text() == LINES + LATER


def test_what_cannot_be_followed_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    monkeypatch.setenv("LLMCONSOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    with Workspace.open() as workspace:
        for words, error in ((("local",), UsageProblem), (("local", "a", "b"), UsageProblem),
                             (("local", str(tmp_path / "none.log")), NotFound),
                             (("local", "", str(tmp_path / "none")), NotFound), (("nowhere", "/x"), NotFound)):
            with pytest.raises(error):
                attach(workspace, *words)
    assert not (tmp_path / "base").exists()


def test_it_is_a_run_with_curves_stages_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCONSOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    there = tmp_path / "there"
    saved = there / "base_checkpoints" / "d2"
    saved.mkdir(parents=True)
    (saved / "model_000030.pt").write_bytes(b"x" * 1000)
    (there / "base_train.log").write_text(LINES + LATER)
    before = sorted(path.name for path in there.rglob("*"))
    with Workspace.open() as workspace:
        run = attach(workspace, "local", "", str(there), "mine")
        with pytest.raises(Refused):
            attach(workspace, "local", "", str(there), "mine")
        try:
            def told() -> bool:
                workspace.ingest()
                return len(workspace.queries.checkpoints(run)) == 2

            until(told)
            assert {(c.source, c.tag, c.step, c.bytes) for c in workspace.queries.checkpoints(run)} == {
                ("base", "d2", 30, 1000), ("base", "d2", 60, 0)}
            (stage,) = workspace.queries.stages(run)
            assert (stage.stage, stage.title, stage.done, stage.total) == ("base_train", "Base", 3, 60)
            assert workspace.operator.state(run).alive
        finally:
            workspace.operator.stop(run)
        until(lambda: not workspace.operator.state(run, fresh=True).alive)
    assert sorted(path.name for path in there.rglob("*")) == before

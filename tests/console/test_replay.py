"""A recorded run played again says the same, can be stopped and goes on where it was, and leaves the record alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from console.errors import NotFound
from console.replayed import replay
from console.runstate import Word
from console.workspace import Workspace
from engine.events import parse_line

STAGE = "01-base_train"
Wait = Callable[..., Any]


def recorded(make_run: Callable[..., Any], steps: int = 40) -> Any:
    run, writer = make_run("mine")
    writer.emit("run", {"state": "started", "stages": run.read()["stages"]}, stage=None)
    writer.emit("stage", {"state": "started", "log": f"logs/{STAGE}.log"})
    lines = []
    for step in range(steps):
        writer.metric(step, loss=3.0 - step / 100)
        lines.append(f"step {step} of a line\n")
    writer.emit("stage", {"state": "finished", "seconds": 4.0})
    writer.emit("run", {"state": "finished", "exit_code": 0})
    run.logs.mkdir(parents=True, exist_ok=True)
    run.stage_log(STAGE).write_text("".join(lines))
    return run


def said(run: Any) -> list[tuple[Any, ...]]:
    events = [parse_line(line) for line in run.events.read_bytes().split(b"\n")[:-1]]
    return [(e.kind, e.stage, e.step, e.data) for e in events if e and e.data.get("reason") != "not played any more"]


def test_it_says_the_same(make_run: Callable[..., Any], wait_until: Wait) -> None:
    source = recorded(make_run)
    with Workspace.open() as workspace:
        workspace.ingest()
        run = replay(workspace, "mine", 1000.0)
        assert workspace.queries.run(run).title == "replay of mine"  # type: ignore[union-attr]
        wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run).word is Word.FINISHED, seconds=20)
        played = source.path.parent / run
        assert said(type(source)(played)) == said(source)
        assert (played / "logs" / f"{STAGE}.log").read_bytes() == source.stage_log(STAGE).read_bytes()
        assert workspace.queries.latest_metrics(run, STAGE)["loss"].count == 40
        with pytest.raises(NotFound):
            replay(workspace, "nobody", 1.0)


def test_stopped_it_goes_on_where_it_was(make_run: Callable[..., Any], wait_until: Wait,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    source = recorded(make_run)
    stamp, events = time.time(), source.events.read_text().splitlines()
    spread = [line.replace(f'"t":{parse_line(line.encode()).t!r}', f'"t":{stamp + n!r}')  # type: ignore[union-attr]
              for n, line in enumerate(events)]
    source.events.write_text("\n".join(spread) + "\n")
    with Workspace.open() as workspace:
        workspace.ingest()
        run = replay(workspace, "mine", 10.0)
        played = type(source)(source.path.parent / run)
        wait_until(lambda: played.events.exists() and len(said(played)) > 8, seconds=20)
        workspace.operator.stop(run)
        wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run, fresh=True).word is Word.STOPPED,
                   seconds=20)
        assert 8 < len(said(played)) < 44
        workspace.operator.resume(run)
        wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run).word is Word.FINISHED, seconds=30)
        assert said(played) == said(source)
        assert played.stage_log(STAGE).read_bytes() == source.stage_log(STAGE).read_bytes()

"""The disk of this machine is full: the console says so, loses no row, and goes on by itself when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import explain
from console.runlog.db import open_reader
from console.workspace import Workspace
from engine.events import EventWriter
from engine.rundir import RunDir

Wait = Callable[..., Any]


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The console's folder on a disk of its own, of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if sys.platform != "linux" or os.getuid() != 0 or not mount("-t", "tmpfs", "-o", "size=2m", "none", str(place)):
        pytest.skip("needs the right to mount a small disk")
    monkeypatch.setenv("LLMCONSOLE_HOME", str(place / "home"))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    with pytest.raises(OSError), open(place / "ballast", "ab", buffering=0) as f:
        for size in (1 << 16, 1 << 12, 1):
            while True:
                f.write(b"x" * size)


def points(path: Path) -> list[tuple[int, float]]:
    reader = open_reader(path)
    try:
        return reader.execute("SELECT step, value FROM metrics WHERE name = 'loss' ORDER BY step").fetchall()
    finally:
        reader.close()


def test_the_follower_says_it_and_catches_up(small_disk: Path, stand_in: object, wait_until: Wait,
                                             make_run: Callable[..., tuple[RunDir, EventWriter]]) -> None:
    run, writer = make_run()
    for step in range(200):
        writer.metric(step, loss=2.0 - step / 1e5)
    with Workspace.open() as workspace:
        follower = workspace.follow()
        follower.watch(run.id)
        wait_until(lambda: "loss" in workspace.queries.latest_metrics(run.id, "01-base_train"))
        (small_disk / "ballast").write_bytes(b"x" * 1_000_000)
        for step in range(200, 60_000):
            writer.metric(step, loss=2.0 - step / 1e5)
        assert "full" in wait_until(lambda: follower.problem, 30)
        assert workspace.queries.run(run.id) is not None  # what was read can be looked at
        assert mount("-o", "remount,size=64m", str(small_disk))
        wait_until(lambda: not follower.problem and len(points(workspace.home.runlog)) == 60_000, 60)
    told = [json.loads(line) for line in run.events.read_bytes().splitlines()]
    with Workspace.open() as again:
        assert again.notices == []
        assert points(again.home.runlog) == [(row["step"], row["data"]["loss"]) for row in told]


def test_a_start_that_cannot_be_written_down_does_not_happen(small_disk: Path, stand_in: object, write_recipe: Any,
                                                             tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             wait_until: Wait) -> None:
    with Workspace.open() as workspace:
        recipes = workspace.home.recipes
        recipes.mkdir()
        (recipes / "short.toml").write_text('title = "T"\ndisk_gb = 0.001\n[[stage]]\nstage = "base_train"\n')
        plan = workspace.operator.plan("short", run_id="only")
        fill(small_disk)
        with pytest.raises(Exception) as caught:
            for number in range(200):  # the log of the ledger may have some pages left
                workspace.operator.ledger.intend("filler", number, "stop", "local", {"x": "y" * 3000})
            workspace.operator.start(plan)
        assert explain(caught.value) != 0 and not Path(plan.path).exists()
        (small_disk / "ballast").unlink()
        workspace.operator.start(plan)
        wait_until(lambda: workspace.ingest() >= 0 and not workspace.operator.state("only").alive)
        assert (Path(plan.path) / "starts").read_text().split() == ["1"]

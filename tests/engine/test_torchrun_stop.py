"""SIGTERM to the supervisor of a stage under torchrun: the step is finished and saved, however long that takes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.context import EXIT_STOPPED
from engine.events import parse_line
from engine.rundir import RunDir
from engine.train import checkpoint

# A save takes this long: more than torchrun is told to wait by the environment of the test. To see it outlast
# torchrun's own 30 seconds, too, set it to 40.
SAVE_S = float(os.environ.get("LLMCONSOLE_SLOW_SAVE_S", 3))
FLAGS = ["--device-type=cpu", "--dtype=float32", "--max-seq-len=32", "--device-batch-size=2", "--total-batch-size=128",
         "--eval-every=none", "--eval-tokens=128", "--num-iterations=100000", "--resume"]
DRIVER = f"""
import sys
from pathlib import Path
from engine.pipeline import Supervisor
from engine.plan import torchrun_argv
from engine.rundir import RunDir
argv = [*torchrun_argv(2, [sys.executable]), {str(Path(__file__).with_name("slow_save_program.py"))!r}, "chat_sft",
        *{FLAGS!r}]
sys.exit(Supervisor(RunDir(Path(sys.argv[1])), lambda step: argv, sample_every=0.2).run())
"""

Driven = tuple[RunDir, "subprocess.Popen[bytes]"]


@pytest.fixture
def driven(byte_base: Path, tmp_path: Path) -> Driven:
    """A run whose one stage trains on two ranks, and its supervisor."""
    run = RunDir(tmp_path / "runs" / "two")
    for folder in (run.logs, run.done, run.job):
        folder.mkdir(parents=True)
    byte_base.rename(run.base)
    shutil.rmtree(run.base / "chatsft_checkpoints")
    stage = {"id": "01-chat_sft", "stage": "chat_sft", "title": "SFT", "args": {}}
    run.run_json.write_text(json.dumps({"v": 1, "run": run.id, "recipe": "x", "title": "X", "stages": [stage]}))
    (run.path / "drive.py").write_text(DRIVER)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "SLOW_SAVE_S": str(SAVE_S),
           "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}  # fmt: skip
    log = open(run.path / "driver.log", "wb")
    return run, subprocess.Popen([sys.executable, str(run.path / "drive.py"), str(run.path)], env=env, stdout=log,
                                 stderr=log)


def wait_until_it_trains(run: RunDir, supervisor: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 100
    while not run.events.exists() or b'"metric"' not in run.events.read_bytes():
        log = run.stage_log("01-chat_sft")
        assert time.monotonic() < deadline and supervisor.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.mark.timeout(300)
def test_the_step_is_saved_before_torchrun_ends(driven: Driven) -> None:
    run, supervisor = driven
    wait_until_it_trains(run, supervisor)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(SAVE_S + 100) == EXIT_STOPPED
    events = [event for line in run.events.read_bytes().splitlines() if (event := parse_line(line))]
    last = max(event.step for event in events if event.kind == "metric" and event.step is not None)
    folder = run.base / "chatsft_checkpoints" / "d1"
    assert checkpoint.newest_valid(folder) == last + 1
    assert len(checkpoint.optimizer_files(folder, last + 1)) == 2
    assert [e.data["state"] for e in events if e.kind == "run"] == ["started", "stopped"]
    assert "forcefully exiting" not in run.stage_log("01-chat_sft").read_text()


@pytest.mark.timeout(300)
def test_no_rank_outlives_a_torchrun_that_was_killed(driven: Driven) -> None:
    run, supervisor = driven
    wait_until_it_trains(run, supervisor)
    [torchrun] = psutil.Process(supervisor.pid).children()
    ranks = torchrun.children()
    torchrun.kill()
    assert supervisor.wait(60) == 1
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert len(ranks) == 2 and not alive

"""The supervisor against small real processes: order, ends of every kind, and kill -9 at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.events import Event, parse_line
from engine.rundir import RunDir

# A stage that counts to `steps` as a training stage would: it saves each step, resumes, saves and exits 75 on SIGTERM.
STAGE = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
name, steps, seconds, how = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
base = Path(os.environ["NANOCHAT_BASE_DIR"])
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
alone = open(base / "alone", "a")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    (base / "overlap").write_text(name)
journal = open(base / "journal", "a", buffering=1)
saved = base / name
done = int(saved.read_text()) if saved.exists() else 0
while done < steps:
    time.sleep(seconds)
    done += 1
    saved.write_text(str(done))
    print("step", done, flush=True)
    if stop:
        time.sleep(2 if how == "slow" else 0.05)
        sys.exit(75)
if how == "fail":
    print(*range(30), sep="\\n", flush=True)
    sys.exit(1)
if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
journal.write(json.dumps([name, os.environ["LLMCONSOLE_ATTEMPT"], os.environ["LLMCONSOLE_STAGE_ID"]]) + "\\n")
"""

DRIVER = """
import json, sys
from pathlib import Path
from engine.pipeline import Supervisor
from engine.rundir import RunDir
folder = Path(sys.argv[1])
def build(step):
    how = json.loads((folder / "how.json").read_text()).get(step.id, "well")
    return [sys.executable, "-I", "-S", str(folder / "stage.py"), step.id, *map(str, step.args.values()), how]
sys.exit(Supervisor(RunDir(folder), build, sample_every=0.1).run())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of three small stages: 1, 4 and 2 steps."""
    made = RunDir(tmp_path / "runs" / "small")
    for folder in (made.path, made.logs, made.done, made.job, made.base):
        folder.mkdir(parents=True)
    rows = [("01-a", 1), ("02-b", 4), ("03-c", 2)]
    describe(made, stages=[{"id": i, "stage": i[3:], "title": i.upper(), "args": {"steps": n, "seconds": 0.02}}
                           for i, n in rows])
    (made.path / "stage.py").write_text(STAGE)
    make_end(made)
    return made


def describe(run: RunDir, **change: Any) -> None:
    known = run.read() if run.run_json.exists() else {"v": 1, "run": run.id, "recipe": "small", "title": "Small"}
    run.run_json.write_text(json.dumps({**known, **change}))


def make_end(run: RunDir, **how: str) -> None:
    (run.path / "how.json").write_text(json.dumps({name.replace("_", "-")[1:]: end for name, end in how.items()}))


@pytest.fixture
def start(run: RunDir) -> Start:
    def go(**env: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", DRIVER, str(run.path)], text=True, stderr=subprocess.PIPE,
                                stdout=subprocess.PIPE, env={**os.environ, **env})
    return go


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def events(run: RunDir) -> list[Event]:
    found = [parse_line(line) for line in run.events.read_bytes().splitlines()]
    assert [event.seq for event in found if event] == list(range(1, len(found) + 1))
    return [event for event in found if event]


def story(run: RunDir) -> list[tuple[str | None, str]]:
    return [(event.stage, event.data["state"]) for event in events(run) if event.kind in ("run", "stage")]


def journal(run: RunDir) -> list[list[str]]:
    return [json.loads(line) for line in (run.base / "journal").read_text().splitlines()]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.005)


def saved(run: RunDir, stage_id: str) -> bool:
    return (run.base / stage_id).exists()


def test_a_run_goes_through_its_stages_in_order(run: RunDir, start: Start) -> None:
    assert ended(start()) == (0, "")
    assert story(run) == [(None, "started"), ("01-a", "started"), ("01-a", "finished"), ("02-b", "started"),
                          ("02-b", "finished"), ("03-c", "started"), ("03-c", "finished"), (None, "finished")]
    assert journal(run) == [["01-a", "1", "01-a"], ["02-b", "1", "02-b"], ["03-c", "1", "03-c"]]
    first = events(run)[0].data
    assert first["stages"][1] == {"id": "02-b", "stage": "b", "title": "02-B"}
    assert first["machine"]["cores"] >= 1 and first["pid"] > 0
    assert run.stage_log("02-b").read_text().splitlines()[1:] == ["step 1", "step 2", "step 3", "step 4"]


def test_a_finished_run_is_only_skipped_through(run: RunDir, start: Start) -> None:
    ended(start())
    assert ended(start()) == (0, "")
    assert story(run)[8:] == [(None, "started"), ("01-a", "skipped"), ("02-b", "skipped"), ("03-c", "skipped"),
                              (None, "finished")]
    assert len(journal(run)) == 3


def test_a_failed_stage_ends_the_run_with_its_last_words_and_resumes(run: RunDir, start: Start) -> None:
    make_end(run, _02_b="fail")
    code, err = ended(start())
    assert code == 1 and "02-b: exit code 1" in err
    failure = events(run)[-2]
    assert (failure.stage, failure.data["state"], failure.data["exit_code"]) == ("02-b", "failed", 1)
    assert failure.data["tail"] == [str(n) for n in range(10, 30)]
    assert story(run)[-1] == (None, "failed")
    make_end(run)
    assert ended(start()) == (0, "")
    assert story(run)[6:9] == [(None, "started"), ("01-a", "skipped"), ("02-b", "started")]
    starts = [event.data for event in events(run) if event.stage == "02-b" and event.data["state"] == "started"]
    assert [start["resumed"] for start in starts] == [False, True]
    assert run.stage_log("02-b").read_text().count("--- attempt ") == 2


def test_a_killed_stage_is_named_by_its_signal(run: RunDir, start: Start) -> None:
    make_end(run, _02_b="kill")
    assert ended(start())[0] == 1
    failure = events(run)[-2].data
    assert failure["exit_code"] == -9 and failure["reason"].startswith("killed by SIGKILL; not enough memory")
    assert not run.done_mark("02-b").exists()


def test_sigterm_lets_the_stage_save_and_the_next_attempt_go_on(run: RunDir, start: Start) -> None:
    process = start()
    wait_until(lambda: saved(run, "02-b"))
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (75, "")
    assert story(run)[-2:] == [("02-b", "stopped"), (None, "stopped")]
    assert ended(start()) == (0, "")
    log = run.stage_log("02-b").read_text()
    assert [line for line in log.splitlines() if line.startswith("step")] == [f"step {n}" for n in (1, 2, 3, 4)]


def test_a_stage_that_stops_by_itself_stops_the_run(run: RunDir, start: Start) -> None:
    process = start()
    wait_until(lambda: saved(run, "02-b"))
    holder = json.loads((run.job / "stage.lock").read_text())
    os.kill(holder["stage"][0], signal.SIGTERM)
    assert ended(process)[0] == 75


def test_kill_9_of_the_supervisor_at_any_moment_loses_and_doubles_nothing(run: RunDir, start: Start) -> None:
    steps = {"01-a": 2, "02-b": 8, "03-c": 4}
    describe(run, stages=[{"id": name, "stage": name[3:], "title": name, "args": {"steps": n, "seconds": 0.06}}
                          for name, n in steps.items()])
    dice = random.Random(3)
    for _ in range(8):
        process = start()
        time.sleep(dice.uniform(0.05, 0.4))
        process.kill()
        ended(process)
    assert ended(start())[0] == 0
    assert not (run.base / "overlap").exists()
    finished = [name for name, _, _ in journal(run)]
    assert finished == sorted(finished) and set(finished) == set(steps)  # the last one before a kill may come twice
    assert story(run)[-1] == (None, "finished")
    assert {name: int((run.base / name).read_text()) for name in steps} == steps


def test_a_second_supervisor_is_turned_away_by_the_first_and_waits_for_an_orphan(run: RunDir, start: Start) -> None:
    describe(run, stages=[{"id": "01-a", "stage": "a", "title": "A", "args": {"steps": 40, "seconds": 0.1}}])
    make_end(run, _01_a="slow")
    first = start()
    wait_until(lambda: saved(run, "01-a"))
    code, err = ended(start())
    assert code == 1 and f"process {first.pid} already drives this run" in err
    first.kill()
    last = start()
    wait_until(lambda: [event.attempt for event in events(run)][-1] == 2)
    last.send_signal(signal.SIGTERM)
    code, err = ended(last)
    assert code == 75 and not (run.base / "overlap").exists()
    assert "waiting until the stage of an earlier attempt has saved" in err
    assert [event.attempt for event in events(run) if event.data.get("state") == "started"] == [1, 1, 2, 2]


def test_stopped_while_it_waits_for_an_orphan_is_stopped(run: RunDir, start: Start) -> None:
    make_end(run, _02_b="slow")
    first = start()
    wait_until(lambda: saved(run, "02-b"))
    first.kill()
    second = start()
    assert second.stderr is not None and "waiting" in second.stderr.readline()
    second.send_signal(signal.SIGTERM)
    assert ended(second)[0] == 75
    assert {event.attempt for event in events(run)} == {1}


def test_too_little_disk_is_said_before_anything_starts(run: RunDir, start: Start) -> None:
    describe(run, disk_gb=10**6)
    code, err = ended(start())
    assert code == 1 and "1000000.0 GB of disk needed" in err
    assert [(event.kind, event.data.get("code")) for event in events(run)][1:] == [("alert", "disk"), ("run", None)]
    assert story(run)[-1] == (None, "failed")


def test_the_machine_is_sampled_while_a_stage_works(run: RunDir, start: Start) -> None:
    describe(run, stages=[{"id": "01-a", "stage": "a", "title": "A", "args": {"steps": 4, "seconds": 0.1}}])
    ended(start())
    samples = [event.data for event in events(run) if event.kind == "system"]
    assert len(samples) >= 2
    assert samples[0]["rss_gb"] > 0 and samples[0]["mem_total_gb"] > samples[0]["mem_used_gb"] > 0


def test_a_stage_that_a_signal_holds_is_told_and_so_is_its_going_on(run: RunDir, start: Start) -> None:
    describe(run, stages=[{"id": "01-a", "stage": "a", "title": "A", "args": {"steps": 60, "seconds": 0.05}}])
    process = start()
    wait_until(lambda: saved(run, "01-a"))
    stage = json.loads((run.job / "stage.lock").read_bytes())["stage"][0]
    os.kill(stage, signal.SIGSTOP)
    wait_until(lambda: [e.data["code"] for e in events(run) if e.kind == "alert"] == ["paused"])
    os.kill(stage, signal.SIGCONT)
    assert ended(process)[0] == 0
    held, on = (e for e in events(run) if e.kind == "alert")
    assert (held.stage, on.stage, on.data["code"]) == ("01-a", "01-a", "continued")
    assert held.data["text"] == "A was stopped by a signal (SIGSTOP) and computes nothing"
    assert held.data["next"] == f"kill -CONT {stage} on that machine lets it go on"


def test_the_launcher_may_give_the_attempt_number(run: RunDir, start: Start) -> None:
    ended(start(LLMCONSOLE_ATTEMPT="7"))
    assert {event.attempt for event in events(run)} == {7}
    assert (run.job / "attempt").read_text() == "7\n"
    ended(start())
    assert events(run)[-1].attempt == 8


def test_a_stage_that_cannot_be_started_fails_the_run(run: RunDir, start: Start) -> None:
    code = DRIVER.replace("[sys.executable, ", "['/nonesuch/python', ")
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert events(run)[-2].data["reason"].startswith("could not be started")


def test_bad_settings_in_run_json_stop_it_before_the_first_stage(run: RunDir) -> None:
    describe(run, stages=[{"id": "01-report", "stage": "report", "title": "R", "args": {}},
                          {"id": "02-base_train", "stage": "base_train", "title": "B", "args": {"detph": 3}}])
    words = [sys.executable, "-m", "engine", "run", "--run-dir", str(run.path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean depth" in done.stderr
    assert not run.events.exists()
    again = subprocess.run([*words, "--set", "report.x=1"], capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "settings are fixed" in again.stderr
    run.run_json.write_text("{")
    damaged = subprocess.run(words, capture_output=True, text=True, check=False)
    assert damaged.returncode == 2 and "is damaged" in damaged.stderr

"""Exactly one start per attempt, whoever dies when; and a state that is true even after the worst."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote import job, job_runner
from remote.errors import OtherAttemptExists, RunnerFailed
from remote.host import Host
from remote.job import JobState
from remote.local import LocalHost

HOST: Host = LocalHost()


@pytest.fixture
def folder(tmp_path: Path, any_host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A job folder on this machine or behind SSH; whatever still runs in it is killed afterwards."""
    monkeypatch.setattr(sys.modules[__name__], "HOST", any_host)
    path = tmp_path / "job"
    yield path
    if path.exists():
        job.stop(any_host, str(path), 0)


def until(folder: Path, *wanted: str) -> JobState:
    deadline = time.monotonic() + 20
    while (found := job.state(HOST, str(folder))).state not in wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def launch(folder: Path, attempt: int, *argv: str, **env: str) -> JobState:
    return job.launch(HOST, str(folder), attempt, argv, env)


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


ONE_LINE = ("sh", "-c", "echo started >> starts")


def test_a_job_runs_detached_and_its_end_is_kept(folder: Path) -> None:
    assert job.state(HOST, str(folder)) == JobState("absent")
    begun = launch(folder, 1, "sh", "-c", "echo out $WORD; echo err >&2; pwd; exit 3", WORD="word")
    assert begun.attempt == 1 and begun.pid and begun.started
    ended = until(folder, "exited")
    assert (ended.code, ended.signal, ended.stopping) == (3, None, False)
    assert ended.started is not None and ended.ended is not None and ended.started <= ended.ended
    assert (folder / "output.1.log").read_text() == f"out word\nerr\n{folder}\n"
    assert not list(folder.glob(".*"))


def test_a_job_has_a_session_no_stdin_and_no_hang_up(folder: Path) -> None:
    launch(folder, 1, sys.executable, "-c", "import os, signal, sys; print(os.getsid(0), os.getpgrp() == os.getpid(),"
           " repr(sys.stdin.read()), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, len(os.listdir('/dev/fd')))")
    until(folder, "exited")
    session, leads, stdin, ignored, descriptors = (folder / "output.1.log").read_text().split()
    assert int(session) != os.getsid(0)
    assert (leads, stdin, ignored, descriptors) == ("True", "''", "True", "4")


def test_twenty_launches_at_once_start_one(folder: Path) -> None:
    request = json.dumps({"argv": ["sh", "-c", "echo started >> starts; sleep 30"]})
    words = [sys.executable, "-I", "-S", str(job.RUNNER), "launch", str(folder), "1"]
    launchers = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    for launcher in launchers:
        assert launcher.stdin is not None
        launcher.stdin.write(request)
        launcher.stdin.close()
    replies = [json.loads(launcher.stdout.read()) for launcher in launchers if launcher.stdout]
    assert [launcher.wait() for launcher in launchers] == [0] * 20
    assert sum(reply["launched"] for reply in replies) == 1
    assert {(reply["state"], reply["pid"]) for reply in replies} == {("running", replies[0]["pid"])}
    time.sleep(0.1)
    assert starts(folder) == 1


@pytest.mark.parametrize("any_host", ["local"], indirect=True)  # the way there makes no difference to it
def test_launchers_killed_at_any_moment_never_start_twice(folder: Path) -> None:
    dice = random.Random(5)
    request = json.dumps({"argv": ONE_LINE}).encode()
    for attempt in range(1, 16):
        for _ in range(3):
            words = [sys.executable, "-I", "-S", str(job.RUNNER), "launch", str(folder), str(attempt)]
            launcher = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert launcher.stdin is not None
            launcher.stdin.write(request)
            launcher.stdin.close()
            time.sleep(dice.uniform(0, 0.05))
            launcher.kill()
            launcher.wait()
        launch(folder, attempt, *ONE_LINE)
        assert until(folder, "exited").attempt == attempt
        assert starts(folder) == attempt


# How many calls of each kind a process of the launch makes, from where its own work begins.
KILL_POINTS = {"clone,clone3,fork,vfork": range(1, 4), "setsid": range(1, 2), "flock": range(1, 2),
               "pipe2": range(1, 2), "fsync": range(1, 6), "rename,renameat,renameat2": range(1, 3),
               "write": range(1, 4),
               "prctl": range(1, 3), "setpgid": range(1, 2), "dup2": range(1, 4), "execve": range(2, 3),
               "exit_group": range(1, 2), "wait4": range(1, 2), "unlink": range(1, 2), "chdir": range(1, 3)}


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to kill at a chosen system call")
@pytest.mark.parametrize("any_host", ["local"], indirect=True)  # the way there makes no difference to it
@pytest.mark.parametrize("calls", KILL_POINTS)
def test_killed_at_a_system_call_it_is_started_once_or_honestly_lost(folder: Path, calls: str) -> None:
    argv = ("sh", "-c", "echo $NUMBER >> starts")
    for attempt in KILL_POINTS[calls]:
        kill = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}",
                "-e", f"inject={calls}:signal=KILL:when={attempt}"]
        request = json.dumps({"argv": argv, "env": {"NUMBER": str(attempt)}}).encode()
        words = [*kill, sys.executable, "-I", "-S", str(job.RUNNER), "launch", str(folder), str(attempt)]
        traced = subprocess.run(words, input=request, capture_output=True, check=False)
        if b"PTRACE" in traced.stderr:
            pytest.skip("this machine does not allow tracing")
        launch(folder, attempt, *argv, NUMBER=str(attempt))
        ended = until(folder, "exited", "lost")
        path = folder / "starts"
        count = path.read_text().split().count(str(attempt)) if path.exists() else 0
        assert ended.attempt == attempt
        assert count == 1 if ended.code == 0 else count <= 1, ended


def test_an_attempt_is_never_started_twice_whatever_its_end(folder: Path) -> None:
    launch(folder, 1, *ONE_LINE)
    until(folder, "exited")
    assert launch(folder, 1, *ONE_LINE).state == "exited"
    running = launch(folder, 2, "sleep", "30")
    with pytest.raises(OtherAttemptExists, match="attempt 2 is running") as caught:
        launch(folder, 3, *ONE_LINE)
    assert caught.value.attempt == 2
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    assert until(folder, "lost").attempt == 2
    assert launch(folder, 2, *ONE_LINE).state == "lost"
    with pytest.raises(OtherAttemptExists):
        launch(folder, 1, *ONE_LINE)
    launch(folder, 3, *ONE_LINE)
    assert until(folder, "exited").attempt == 3
    assert starts(folder) == 2


def test_a_command_does_not_outlive_its_keeper_unasked(folder: Path) -> None:
    forever = "echo > up; while :; do sleep 0.02; done"
    running = launch(folder, 1, "sh", "-c", f"trap 'echo asked >> asked; exit' TERM; {forever}")
    wait_for((folder / "up").exists)
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    if sys.platform == "linux":
        wait_for((folder / "asked").exists)


def test_a_command_that_does_not_exist_says_so(folder: Path) -> None:
    launch(folder, 1, "nonesuch-command")
    assert until(folder, "exited").code == 127
    assert "nonesuch-command" in (folder / "output.1.log").read_text()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stop_lets_the_command_save(folder: Path) -> None:
    launch(folder, 1, "sh", "-c", "trap 'sleep 0.2; exit 75' TERM; echo > up; while :; do sleep 0.02; done")
    wait_for((folder / "up").exists)
    asked = job.request_stop(HOST, str(folder), 30)
    assert (asked.state, asked.stopping) == ("running", True)
    ended = until(folder, "exited")
    assert (ended.code, ended.signal, ended.stopping) == (75, None, True)
    assert job.stop(HOST, str(folder), 1) == ended


def test_stop_ends_what_will_not_and_everything_below_it(folder: Path) -> None:
    below = ("import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid(); "
             "print(os.getpid(), flush=True); time.sleep(60)")
    launch(folder, 1, "sh", "-c", f"trap '' TERM; ({sys.executable} -I -S -c '{below}' > pid &); sleep 60")
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().endswith("\n"))
    ended = job.stop(HOST, str(folder), 0.3)
    assert (ended.state, ended.signal) == ("exited", signal.SIGKILL)
    pid = int((folder / "pid").read_text())
    wait_for(lambda: job_runner.process_start(pid) is None)


def test_stop_at_once_and_stop_of_nothing(folder: Path) -> None:
    assert job.stop(HOST, str(folder), 0) == JobState("absent")
    assert not folder.exists()
    launch(folder, 1, "sh", "-c", "trap '' TERM; sleep 60")
    assert job.stop(HOST, str(folder), 0).signal == signal.SIGKILL


def identity(pid: int, **change: object) -> dict[str, object]:
    return {"attempt": 1, "pid": pid, "start": job_runner.process_start(pid), "boot": job_runner.boot_id(),
            "started": 1.0, "argv": [], **change}


@pytest.mark.parametrize("change", [{"start": "1"}, {"boot": "another boot"}])
def test_another_process_with_the_same_number_is_not_the_job(folder: Path, change: dict[str, object]) -> None:
    folder.mkdir()
    job_runner.write_durably(folder / "identity.1.json", identity(os.getpid()))
    assert job_runner.state(folder)["state"] == "running"
    job_runner.write_durably(folder / "identity.1.json", identity(os.getpid(), **change))
    assert job_runner.state(folder)["state"] == "lost"
    assert job.stop(HOST, str(folder), 0).state == "lost"  # and this process was not signalled


def test_a_zombie_is_dead(folder: Path) -> None:
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    job_runner.write_durably(folder / "identity.1.json", identity(process.pid))
    assert job_runner.state(folder)["state"] == "running"
    process.kill()
    wait_for(lambda: job_runner.state(folder)["state"] == "lost")  # nobody has reaped it yet
    assert Path(f"/proc/{process.pid}").exists() or sys.platform != "linux"
    process.communicate()


def test_a_full_disk_does_not_cost_the_exit_record(folder: Path) -> None:
    folder.mkdir()
    reserved = job_runner._reserve(folder / ".exit.1.tmp")
    size, inode = reserved.stat().st_size, reserved.stat().st_ino
    job_runner._write_exit(reserved, folder / "exit.1.json", {"code": 0, "signal": None, "ended": time.time()})
    written = (folder / "exit.1.json").stat()
    assert (written.st_size, written.st_ino) == (size, inode)  # no new room was needed
    assert json.loads((folder / "exit.1.json").read_bytes())["code"] == 0


def test_a_box_that_answers_nonsense_is_told_to_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import sys; print('welcome'); sys.exit('no such thing')")
    monkeypatch.setattr(job, "RUNNER", script)
    with pytest.raises(RunnerFailed, match="exit code 1: no such thing"):
        job.state(HOST, str(tmp_path))

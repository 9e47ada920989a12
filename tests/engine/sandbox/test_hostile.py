"""Hostile programs against the real sandbox: none passes, none leaves a trace, the next honest one is judged right."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.sandbox import sandbox as sandboxes
from engine.sandbox import self_test
from engine.sandbox.sandbox import Sandbox, SandboxUnavailable

sys.path.insert(0, str(Path(__file__).parent))
from hostile import CODE

sys.path.pop(0)

TESTS = "def check(f):\n    assert f(2) == 4\n    assert f(3) == 6\n"
HONEST = "def f(x):\n    return 2 * x\n"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(scope="module")
def walled():
    os.environ["SECRET"] = "hidden"
    with Sandbox() as box:
        yield box
    del os.environ["SECRET"]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder anybody may write to, and a listening socket: what a program must not reach."""
    folder = tmp_path_factory.mktemp("outside")
    for parent in (folder, *list(folder.parents)[:3]):
        if parent != Path("/tmp") and parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    folder.chmod(0o777)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield folder, listener


def children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("name", list(CODE))
def test_nothing_gets_out_and_nothing_passes(walled, outside, name):
    folder, listener = outside
    canary = folder / "canary"
    canary.write_text("canary")
    canary.chmod(0o666)
    before = children()
    port = listener.getsockname()[1]
    code = CODE[name].replace("OUT", str(folder)).replace("PORT", str(port)).replace("PID", str(os.getpid()))
    begin = time.monotonic()
    verdict = walled.judge(code, "f", TESTS, seconds=0.4)
    assert not verdict.passed, verdict
    assert time.monotonic() - begin < 5
    assert [path.name for path in folder.iterdir()] == ["canary"]
    assert canary.read_text() == "canary" and canary.stat().st_mode & 0o777 == 0o666
    assert not Path("/tmp/llmconsole-pwned").exists()
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert children() == before
    assert walled.judge(HONEST, "f", TESTS).passed
    assert "hidden" not in verdict.reason


def test_there_are_enough_of_them():
    assert len(CODE) >= 40


def test_the_supervisor_survives_them_all(walled):
    assert walled.judge(HONEST, "f", TESTS).passed and walled._process.poll() is None
    environment = Path(f"/proc/{walled._process.pid}/environ").read_bytes()
    assert b"SECRET" not in environment and environment == b""


def test_a_supervisor_that_was_killed_is_started_again(walled):
    walled._process.kill()
    walled._process.wait()
    assert walled.judge(HONEST, "f", TESTS).passed


def test_a_program_dies_with_its_supervisor(walled):
    """kill -9 for the supervisor in the middle of a program leaves nobody behind."""
    import threading

    thread = threading.Thread(target=walled.judge, args=("def f(x):\n    while True: pass", "f", TESTS))
    thread.start()
    supervisor = psutil.Process(walled._process.pid)
    deadline = time.monotonic() + 5
    while len(supervisor.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    pair = supervisor.children()
    supervisor.kill()
    thread.join(10)
    _, alive = psutil.wait_procs(pair, timeout=5)
    assert len(pair) == 2 and not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert walled.judge(HONEST, "f", TESTS).passed


def test_without_walls_it_refuses_to_be_a_sandbox(monkeypatch):
    """The self-test is real: on a supervisor that does not confine, it finds the way out."""
    hole = ("from engine.sandbox import confine; confine.wall_in = confine.limit = lambda walls: None; "
            "confine.drop_user = lambda: None; ")
    monkeypatch.setattr(sandboxes, "_BOOT", sandboxes._BOOT.replace("sys.path.remove", hole + "sys.path.remove"))
    with pytest.raises(SandboxUnavailable, match="does not hold"):
        Sandbox()


def test_a_kernel_without_seccomp_is_explained(monkeypatch):
    hole = "from engine.sandbox import confine; confine._SYSCALLS = dict(); "
    monkeypatch.setattr(sandboxes, "_BOOT", sandboxes._BOOT.replace("sys.path.remove", hole + "sys.path.remove"))
    with pytest.raises(SandboxUnavailable, match="no system call filter for Linux"):
        Sandbox()


def test_another_system_is_explained(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sandboxes.available() == "running model-written code needs Linux (seccomp); this is darwin"


def test_without_landlock_the_filter_alone_holds(monkeypatch):
    hole = "from engine.sandbox import confine; confine._landlock_ruleset = lambda: (-1, 0); "
    monkeypatch.setattr(sandboxes, "_BOOT", sandboxes._BOOT.replace("sys.path.remove", hole + "sys.path.remove"))
    with Sandbox() as box:
        assert "no Landlock" in box.walls and box.judge(HONEST, "f", TESTS).passed


def test_the_filter_alone_is_enough_where_landlock_and_the_other_user_are_missing(monkeypatch):
    hole = ("from engine.sandbox import confine; confine._landlock_ruleset = lambda: (-1, 0); "
            "confine.drop_user = lambda: None; ")
    monkeypatch.setattr(sandboxes, "_BOOT", sandboxes._BOOT.replace("sys.path.remove", hole + "sys.path.remove"))
    with Sandbox() as box:
        assert box.judge(HONEST, "f", TESTS).passed


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_it_works_for_an_ordinary_user():
    """The whole start and self-test in a process that is nobody."""
    import subprocess

    code = ("import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.environ['HOME'] = '/'\n"
            "from engine.sandbox.sandbox import Sandbox\n"
            "with Sandbox() as s:\n"
            "    print(s.walls, s.judge('def f(x): return 2*x', 'f', 'assert candidate(2) == 4').passed)")
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False,
                              cwd=Path(__file__).parents[3], env={"PATH": "/usr/bin:/bin"})
        if "ermission denied" not in done.stderr and "No module named" not in done.stderr:
            break
    else:
        pytest.skip("no interpreter here is readable for others")
    assert "the same user" in done.stdout and done.stdout.strip().endswith("True"), done.stderr


def test_nobody_is_left(walled):
    assert self_test.prove_isolation(walled) is None

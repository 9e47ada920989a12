"""Servers that do not outlive whoever asked for them: here, and on another machine over a real SSH server."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from console.chat.model_server import ModelServer
from console.cli.main import call
from console.errors import ConsoleError
from console.exit_codes import Exit
from console.machines.hosts import Hosts
from console.machines.targets import LOCAL, SSH, Target, Targets
from remote.ssh.known_hosts import KnownHosts

ROOT = Path(__file__).parents[2]


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("served_" + Path(path).parent.name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def served_box(tmp_path: Path) -> Iterator[Any]:
    """A prepared target with one model that says `Hi`."""
    box = load("tests/remote/conftest.py").start_sshd(tmp_path / "box")
    home = tmp_path / "home"
    KnownHosts(home / "known_hosts").pin("box", box.host_key)
    Targets(home).put(Target("box", SSH, box.route().user, "127.0.0.1", box.port, str(box.key),
                             base=str(box.folder / "base"), python=(sys.executable,)))
    load("tests/engine/inference/conftest.py").save_chain.__wrapped__()(box.folder / "base", 5, [*b"Hi", 260])
    yield box
    box.process.kill()
    box.process.wait()


def servers(box: Any) -> list[psutil.Process]:
    """The engine's processes on that machine."""
    try:
        children = psutil.Process(box.process.pid).children(recursive=True)
        return [child for child in children if child.is_running() and "serve" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    """Whether it does anything yet; where nobody reaps it, what is left of it stays in the table."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(holds: Callable[[], Any], seconds: float = 25) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Console:
    """`llmconsole serve --target box` in a process of its own."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LLMCONSOLE_SERVE_TOKEN": "s3cret"}
        words = [sys.executable, "-m", "console", "serve", "--target", "box", "--port=0"]
        self.process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        assert self.process.stdout and self.process.stderr
        self.about = self.process.stdout.readline()
        self.url = (self.process.stdout.readline().split() or [self.process.stderr.read()])[0]


@pytest.fixture
def console() -> Iterator[Callable[[], Console]]:
    started: list[Console] = []

    def start() -> Console:
        started.append(Console())
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_a_page_from_there_opens_here_and_ctrl_c_ends_both(served_box: Any, console: Callable[[], Console]) -> None:
    here = console()
    assert here.about.startswith("sft/d1@5: ") and here.url.startswith("http://127.0.0.1:"), here.url
    assert "chat" in httpx.get(here.url).text
    body = {"messages": [{"role": "user", "content": "hello"}]}
    assert httpx.post(f"{here.url}/v1/chat/completions", json=body).status_code == 401, "the token travels, unseen"
    bearer = {"authorization": "Bearer s3cret"}
    said = httpx.post(f"{here.url}/v1/chat/completions", json=body, headers=bearer).json()
    assert said["choices"][0]["message"]["content"] == "Hi"
    [there] = servers(served_box)
    assert not any("s3cret" in word for word in there.cmdline())
    listening = {(c.laddr.ip, c.laddr.port) for c in there.net_connections() if c.status == psutil.CONN_LISTEN}
    assert {ip for ip, _ in listening} == {"127.0.0.1"} and here.url.rpartition(":")[2] not in map(str, listening)
    here.process.send_signal(signal.SIGINT)
    assert here.process.wait(20) == 0
    until(lambda: not alive(there))


def test_a_killed_console_takes_the_server_with_it(served_box: Any, console: Callable[[], Console]) -> None:
    here = console()
    [there] = servers(served_box)
    here.process.kill()
    until(lambda: not alive(there))  # it is nobody's child any more


def test_a_server_that_ends_is_told(served_box: Any, console: Callable[[], Console]) -> None:
    here = console()
    for process in servers(served_box):
        process.kill()
    _, err = here.process.communicate(timeout=25)
    assert here.process.returncode == Exit.WORK_FAILED and "the server on box ended" in err and "Traceback" not in err


def test_one_on_this_machine_ends_with_whoever_started_it(served_box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(served_box.folder / "base"))
    server = ModelServer(Hosts(), LOCAL)
    server.start()
    assert server.about.startswith("sft/d1@5") and httpx.get(f"{server.url}/health").json()["status"] == "ok"
    server.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(served_box.folder / "nothing"))
    with pytest.raises(ConsoleError, match="no trained model"):
        ModelServer(Hosts(), LOCAL).start()


def test_what_cannot_work_is_said_before_anything_starts(served_box: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
            (["--host", "0.0.0.0"], Exit.USAGE, "loopback alone"), (["-m", "nope"], Exit.NOT_FOUND, "no model 'nope'"),
            (["-i", "rl"], Exit.NOT_FOUND, "no model of source rl")):
        assert call(["serve", "--target", "box", *words]) == code
        assert said in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call(["serve", "--target", "box", f"--port={port}"]) == Exit.WORK_FAILED
        assert f"cannot listen on port {port} here" in capsys.readouterr().err
    assert call(["serve", "--target", "nowhere"]) == Exit.NOT_FOUND and servers(served_box) == []


def test_a_server_ends_when_its_console_falls_silent(served_box: Any) -> None:
    words = [sys.executable, "-m", "engine", "serve", "--port=0", "--heartbeat=1"]
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(served_box.folder / "base"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stderr
        for _ in range(10):  # a word now and then keeps it
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(0.3)
        assert process.poll() is None
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert "whoever asked for this server is gone" in process.stderr.read()

"""A workspace whose runs are a small stand-in process, so that a whole life of a run takes a tenth of a second."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console import operator as operator_module
from console.workspace import Workspace
from engine import rundir
from engine.events import EventWriter
from engine.rundir import RunDir

# Does what the supervisor does, as far as a console can see, with the standard library alone. The run's title is its
# script: words such as "sleep:5", "exit:1", "kill".
STAND_IN = textwrap.dedent("""
    import json, os, signal, sys, time
    run = sys.argv[1]
    attempt = int(os.environ["LLMCONSOLE_ATTEMPT"])
    with open(run + "/starts", "a") as f:
        f.write(f"{attempt}\\n")
    about = json.load(open(run + "/run.json"))
    seq = sum(1 for _ in open(run + "/events.jsonl")) if os.path.exists(run + "/events.jsonl") else 0
    def emit(kind, data, stage=None, step=None):
        global seq
        seq += 1
        row = {"v": 1, "seq": seq, "t": time.time(), "mono": 0, "run": about["run"], "attempt": attempt, "stage": stage,
               "kind": kind, "step": step, "data": data}
        with open(run + "/events.jsonl", "a") as f:
            f.write(json.dumps(row) + "\\n")
    def leave(state, code):
        emit("run", {"state": state, "exit_code": code})
        sys.exit(code)
    signal.signal(signal.SIGTERM, lambda *_: leave("stopped", 75))
    stage = about["stages"][0]["id"]
    os.makedirs(run + "/logs", exist_ok=True)
    emit("run", {"state": "started", "stages": about["stages"]})
    emit("stage", {"state": "started", "index": 1, "title": "T"}, stage)
    with open(run + f"/logs/{stage}.log", "a") as f:
        f.write("".join(f"line {i}\\n" for i in range(30)))
    for step in range(5):
        emit("metric", {"loss": 2.0 - step / 10 + attempt}, stage, step)
    for word in about["title"].split():
        name, _, value = word.partition(":")
        if name == "sleep" and attempt == 1:
            time.sleep(float(value))
        if name == "kill" and attempt == 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the keeper's death would say it, and we are to vanish
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "exit" and attempt == 1:
            emit("alert", {"level": "error", "code": "nan", "text": "loss is NaN at step 4", "next": "lower it"}, stage)
            emit("stage", {"state": "failed", "exit_code": int(value)}, stage)
            leave("failed", int(value))
    emit("stage", {"state": "finished", "seconds": 0.1, "exit_code": 0}, stage)
    leave("finished", 0)
""")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Every operator of this test launches the stand-in instead of the supervisor."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)

    def argv(python: Any, run_dir: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(script), run_dir]

    monkeypatch.setattr(operator_module, "pipeline_argv", argv)
    return argv


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., str]:
    """Puts a one-stage recipe into the person's own folder; its title is the stand-in's script."""

    def write(name: str = "short", title: str = "quick", disk_gb: float = 0.01) -> str:
        folder = tmp_path / "home" / "recipes"
        folder.mkdir(parents=True, exist_ok=True)
        head = f'title = "{title}"\ndisk_gb = {disk_gb}\n[minutes]\ncpu = 1\n'
        (folder / f"{name}.toml").write_text(head + '[[stage]]\nstage = "base_train"\ndepth = 4\n')
        return name

    return write


@pytest.fixture
def workspace(stand_in: object) -> Iterator[Workspace]:
    with Workspace.open() as opened:
        yield opened


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Polls until the answer is true; fails with the last answer."""

    def wait(question: Callable[[], Any], seconds: float = 10.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
            time.sleep(0.02)
        return answer

    return wait


@pytest.fixture
def make_run() -> Callable[..., tuple[RunDir, EventWriter]]:
    """A run folder as the supervisor leaves it, with a writer for its events."""

    def make(run_id: str = "tiny-1", stages: tuple[str, ...] = ("base_train",), created: float = 1.0
             ) -> tuple[RunDir, EventWriter]:
        rows = [{"id": f"{i:02d}-{name}", "stage": name, "title": name, "args": {"depth": 4}}
                for i, name in enumerate(stages, 1)]
        run = rundir.create(rundir.base_dir(), run_id, {"v": 1, "run": run_id, "recipe": "tiny", "title": "Tiny",
                                                        "created": created, "stages": rows})
        return run, EventWriter(run.events, run=run_id, stage="01-base_train")

    return make


@pytest.fixture
def cli_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a verb with --json in this process; its exit code and what it printed, parsed."""
    from console.cli.main import call

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = call([*words, "--json"])
        text = capsys.readouterr().out
        return code, json.loads(text) if text else None

    return run

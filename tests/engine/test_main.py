"""`python -m engine`: exit codes and words for every way in which a stage can end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import __main__ as entry
from engine import stage as stages
from engine.config import ConfigError
from engine.context import StageContext, StageError, StageFunction, Stopped

Ended = tuple[int, Any]
RunStage = Callable[[StageFunction], Ended]


def engine(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *argv], capture_output=True, text=True, check=False)


@pytest.fixture
def stage_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunStage:
    """Make the stage `report` do something else inside a run folder; gives the exit code and the last event."""
    monkeypatch.setenv("LLMCONSOLE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("LLMCONSOLE_STAGE_ID", "09-report")
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(body: StageFunction) -> Ended:
        monkeypatch.setattr(stages.StageSpec, "load", lambda spec: body)
        code = entry.main(["report"])
        text = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
        return code, json.loads(text[-1]) if text else None

    return run


def raising(error: BaseException) -> StageFunction:
    def body(config: object, context: StageContext) -> None:
        raise error

    return body


def test_a_finished_stage_is_0_and_a_stopped_one_75(stage_that: RunStage) -> None:
    assert stage_that(lambda config, context: None) == (0, None)
    assert stage_that(raising(Stopped())) == (75, None)


def test_a_known_failure_is_said_without_a_traceback(stage_that: RunStage, capsys: pytest.CaptureFixture[str]) -> None:
    code, event = stage_that(raising(StageError("no shards", "run dataset first", "no-data")))
    assert code == 1 and event is not None
    assert (event["kind"], event["stage"]) == ("alert", "09-report")
    assert event["data"] == {"level": "error", "code": "no-data", "text": "no shards", "next": "run dataset first"}
    assert capsys.readouterr().err == "report: no shards\nrun dataset first\n"


def test_an_unknown_failure_shows_its_traceback(stage_that: RunStage, capsys: pytest.CaptureFixture[str]) -> None:
    code, event = stage_that(raising(ZeroDivisionError("by zero")))
    assert code == 1 and event is not None and event["data"]["code"] == "crash"
    assert event["data"]["text"] == "ZeroDivisionError: by zero"
    assert "Traceback" in capsys.readouterr().err


def test_settings_that_do_not_go_together_are_2(stage_that: RunStage, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage_that(raising(ConfigError("batch does not divide")))[0] == 2
    assert capsys.readouterr().err == "python -m engine report: batch does not divide\n"


@pytest.mark.parametrize(("argv", "words"), [
    (["base_trian"], "did you mean base_train"), (["base_train", "--detph=3"], "did you mean depth"),
    (["run", "--run-dir", "{tmp}/a b"], "cannot name a run"),
    (["run", "--run-dir", "{tmp}/r"], "a recipe must be named"),
    (["run", "tinny", "--run-dir", "{tmp}/r"], "did you mean tiny"),
    (["run", "tiny", "--run-dir", "{tmp}/r", "--set", "report.x=1"], "unknown setting 'x'"),
])
def test_bad_words_are_2_and_leave_nothing_behind(tmp_path: Path, argv: list[str], words: str) -> None:
    done = engine(*(word.format(tmp=tmp_path) for word in argv))
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_stage_and_setting() -> None:
    listing = engine("--help").stdout
    assert all(f"  {name} " in listing for name in [*stages.STAGES, "run", "chat"])
    settings = engine("base-train", "--help").stdout
    assert "--depth" in settings and "[20]" in settings and "(auto, cpu, cuda, mps)" in settings


def test_the_torch_free_half_stays_free_of_it() -> None:
    code = ("import sys, engine.__main__, engine.pipeline, engine.recipe, engine.machine\n"
            "print(sorted({'torch', 'pyarrow', 'numpy', 'textual'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

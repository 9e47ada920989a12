"""The life of a run through the operator: exactly one start whatever is pressed or killed, and honest words after."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console import lookout
from console import operator as operator_module
from console.errors import Conflict, ConsoleError, NotFound, Refused, UsageProblem
from console.ledger import Ledger
from console.operator import Operator
from console.runstate import RunState, Word
from console.workspace import Workspace
from engine.config import ConfigError
from engine.events import CONTINUED, PAUSED, EventWriter
from engine.rundir import base_dir, runs_dir
from remote import job
from remote.errors import HostUnreachable, RunnerFailed
from remote.local import LocalHost

Wait = Callable[..., Any]
Write = Callable[..., str]


def starts(run_id: str) -> list[str]:
    """The attempts that really began, as the stand-in itself wrote them down."""
    path = runs_dir(base_dir()) / run_id / "starts"
    return path.read_text().split() if path.exists() else []


def ended(workspace: Workspace, run_id: str) -> RunState | None:
    workspace.ingest()
    if workspace.operator.state(run_id, tail=False).alive:
        return None
    workspace.ingest()  # its last words may have come between the two looks
    return workspace.operator.state(run_id)


def test_a_plan_says_everything_and_writes_nothing(workspace: Workspace, write_recipe: Write, tmp_path: Path) -> None:
    plan = workspace.operator.plan(write_recipe(), overrides={"base_train.depth": 6})
    assert plan.ok and plan.problems == () and plan.usd == 0.0
    assert plan.minutes == 1.0 or plan.machine != "cpu"
    assert [(s.id, s.stage, s.args["depth"]) for s in plan.stages] == [("01-base_train", "base_train", 6)]
    assert plan.disk_needed == 10_000_000 and plan.disk_free > 0
    assert plan.path == str(tmp_path / "base" / "runs" / plan.run)
    assert plan.cli == "llmconsole run start short --set base_train.depth=6"
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(("recipe", "overrides", "hint"), [
    ("shrt", {}, "did you mean short"), ("short", {"base_train.dpth": 1}, "did you mean depth"),
    ("short", {"mid_train.depth": 1}, "has no stage"), ("short", {"base_train.depth": "deep"}, "whole number")])
def test_a_plan_that_cannot_be_names_the_nearest(workspace: Workspace, write_recipe: Write, recipe: str,
                                                 overrides: dict[str, Any], hint: str) -> None:
    write_recipe()
    with pytest.raises(ConfigError, match=hint):
        workspace.operator.plan(recipe, overrides=overrides)


def test_an_unknown_target_is_not_found(workspace: Workspace, write_recipe: Write) -> None:
    with pytest.raises(NotFound, match="no target"):
        workspace.operator.plan(write_recipe(), "mars")


def test_too_little_disk_is_said_before_anything_is_done(workspace: Workspace, write_recipe: Write) -> None:
    plan = workspace.operator.plan(write_recipe(disk_gb=1e8))
    assert "would stop half way" in plan.problems[0]
    with pytest.raises(Refused):
        workspace.operator.start(plan)
    assert not Path(plan.path).exists() and workspace.operator.ledger.pending() == []


def test_from_start_to_finish(workspace: Workspace, write_recipe: Write, wait_until: Wait) -> None:
    plan = workspace.operator.plan(write_recipe(title="sleep:2"))
    run_id = workspace.operator.start(plan)
    assert workspace.queries.run(run_id) is not None  # shown before its first event
    assert workspace.operator.state(run_id).word in (Word.STARTING, Word.RUNNING)
    assert run_id in workspace.operator.plan("short").warnings[0]
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.exit_code, state.attempt) == (Word.FINISHED, 0, 1)
    assert json.loads((Path(plan.path) / "run.json").read_text()) == plan.description
    assert starts(run_id) == ["1"]


def test_a_failure_is_explained(workspace: Workspace, write_recipe: Write, wait_until: Wait) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="exit:1")))
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.exit_code, state.stage) == (Word.FAILED, 1, "01-base_train")
    assert state.text == "FAILED exit 1 in 01-base_train: loss is NaN at step 4"
    assert "resume" in state.next
    assert state.log_tail == tuple(f"line {i}" for i in range(10, 30))


def test_a_vanished_run_is_lost_and_resumes_as_the_next_attempt(workspace: Workspace, write_recipe: Write,
                                                                wait_until: Wait) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="kill")))
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.exit_code) == (Word.LOST, None)
    assert workspace.operator.resume(run_id) == 2
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.attempt) == (Word.FINISHED, 2)
    assert starts(run_id) == ["1", "2"]


def test_stop_lets_it_end_by_itself_and_resume_goes_on(workspace: Workspace, write_recipe: Write,
                                                       wait_until: Wait) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="sleep:30")))
    wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run_id).word is Word.RUNNING)
    with pytest.raises(Conflict, match="is running"):
        workspace.operator.resume(run_id)
    workspace.operator.stop(run_id)
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.exit_code) == (Word.STOPPED, 75)
    assert workspace.operator.stop(run_id).word is Word.STOPPED  # again changes nothing
    workspace.operator.resume(run_id)
    assert wait_until(lambda: ended(workspace, run_id)).word is Word.FINISHED
    with pytest.raises(Conflict, match="finished"):
        workspace.operator.resume(run_id)


def test_stop_at_once_is_a_stop_not_a_failure(workspace: Workspace, write_recipe: Write, wait_until: Wait) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="sleep:30")))
    wait_until(lambda: starts(run_id))
    workspace.operator.stop(run_id, graceful=False)
    state = wait_until(lambda: ended(workspace, run_id))
    assert (state.word, state.exit_code) == (Word.STOPPED, -9)


def test_pressing_many_times_starts_once(workspace: Workspace, write_recipe: Write, wait_until: Wait) -> None:
    plan = workspace.operator.plan(write_recipe())
    pressed = [threading.Thread(target=workspace.operator.start, args=(plan,)) for _ in range(8)]
    for thread in pressed:
        thread.start()
    for thread in pressed:
        thread.join()
    wait_until(lambda: ended(workspace, plan.run))
    assert starts(plan.run) == ["1"]
    assert workspace.operator.start(plan) == plan.run
    assert len(workspace.operator.ledger.intents(plan.run)) == 1


def test_the_same_id_with_other_settings_is_refused(workspace: Workspace, write_recipe: Write) -> None:
    workspace.operator.start(workspace.operator.plan(write_recipe(), run_id="mine"))
    with pytest.raises(Conflict, match="other settings"):
        workspace.operator.start(workspace.operator.plan("short", overrides={"base_train.depth": 9}, run_id="mine"))


@pytest.mark.parametrize("name", ["../up", "", "a b", "x" * 81, "-x"])
def test_an_id_that_could_be_a_path_is_refused(workspace: Workspace, write_recipe: Write, name: str) -> None:
    plan = workspace.operator.plan(write_recipe(), run_id=name or " ")
    assert plan.problems
    with pytest.raises((UsageProblem, Refused)):
        workspace.operator.start(plan)


CRASHES = [(Ledger, "intend", "after"), (Operator, "_write_run_json", "before"), (LocalHost, "put", "after"),
           (Operator, "_register", "after"), (job, "launch", "before"), (job, "launch", "after"),
           (Ledger, "launched", "after")]


@pytest.mark.parametrize(("owner", "name", "when"), CRASHES, ids=[f"{w}-{n}" for _, n, w in CRASHES])
def test_kill_9_between_any_two_steps_of_a_start_leads_to_exactly_one(
        stand_in: object, write_recipe: Write, wait_until: Wait, owner: Any, name: str, when: str) -> None:
    write_recipe()
    child = os.fork()
    if child == 0:
        original = getattr(owner, name)

        def dying(*args: Any, **kwargs: Any) -> None:
            if when == "after":
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, dying)
        try:
            doomed = Workspace.open()
            doomed.operator.start(doomed.operator.plan("short", run_id="only"))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with Workspace.open(patience=2) as workspace:
        assert wait_until(lambda: ended(workspace, "only")).word is Word.FINISHED
        assert starts("only") == ["1"]
        assert workspace.operator.ledger.pending() == []
    with Workspace.open() as again:
        assert again.notices == []
        assert starts("only") == ["1"]


def test_kill_9_within_a_resume_leads_to_exactly_one(stand_in: object, write_recipe: Write, wait_until: Wait) -> None:
    with Workspace.open() as workspace:
        run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="exit:1")))
        wait_until(lambda: ended(workspace, run_id))
    child = os.fork()
    if child == 0:
        job.launch = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        try:
            Workspace.open().operator.resume(run_id)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    with Workspace.open(patience=2) as workspace:
        assert "resume" in workspace.notices[0]
        assert wait_until(lambda: ended(workspace, run_id)).word is Word.FINISHED
        assert starts(run_id) == ["1", "2"]


def test_a_launch_that_fails_is_said_and_can_be_tried_again(workspace: Workspace, write_recipe: Write, wait_until: Wait,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    plan = workspace.operator.plan(write_recipe())

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RunnerFailed("there is no Python there")

    with monkeypatch.context() as patched:
        patched.setattr(job, "launch", refuse)
        with pytest.raises(ConsoleError, match="could not be started: there is no Python"):
            workspace.operator.start(plan)
    state = workspace.operator.state(plan.run)
    assert state.word is Word.FAILED and "no Python there" in state.text
    assert workspace.operator.resume(plan.run) == 2
    assert wait_until(lambda: ended(workspace, plan.run)).word is Word.FINISHED


def test_a_launch_without_an_answer_stays_decided(workspace: Workspace, write_recipe: Write, wait_until: Wait,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    plan = workspace.operator.plan(write_recipe())

    def silence(*args: Any, **kwargs: Any) -> None:
        raise HostUnreachable("link down")

    with monkeypatch.context() as patched:
        patched.setattr(job, "launch", silence)
        with pytest.raises(ConsoleError, match="nobody knows whether the start happened"):
            workspace.operator.start(plan)
    assert workspace.operator.state(plan.run).word is Word.QUEUED
    assert workspace.operator.recover() == [f"Carried out what was interrupted: start of {plan.run}."]
    assert wait_until(lambda: ended(workspace, plan.run)).word is Word.FINISHED


def test_stopping_what_is_only_decided_cancels_it(workspace: Workspace, write_recipe: Write,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    plan = workspace.operator.plan(write_recipe())

    def silence(*args: Any, **kwargs: Any) -> None:
        raise HostUnreachable("link down")

    with monkeypatch.context() as patched:
        patched.setattr(job, "launch", silence)
        with pytest.raises(ConsoleError):
            workspace.operator.start(plan)
    assert workspace.operator.stop(plan.run).word is Word.STOPPED
    assert workspace.operator.recover() == []
    assert starts(plan.run) == []


def test_states_of_ended_runs_ask_no_machine(workspace: Workspace, make_run: Callable[..., Any],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        _, writer = make_run(f"done-{number}")
        writer.emit("run", {"state": "finished", "exit_code": 0})
    workspace.ingest()
    monkeypatch.setattr(job, "state", lambda *_: pytest.fail("a machine was asked"))
    states = workspace.operator.states(workspace.queries.runs())
    assert {state.word for state in states.values()} == {Word.FINISHED}


def test_a_run_that_moves_is_not_asked_about_again_and_again(
        workspace: Workspace, write_recipe: Write, wait_until: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="sleep:30")))
    wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run_id).word is Word.RUNNING)
    asked = []
    original = job.state
    monkeypatch.setattr(job, "state", lambda *a: asked.append(1) or original(*a))
    for _ in range(50):
        assert workspace.operator.state(run_id, tail=False).word is Word.RUNNING
    assert len(asked) <= 1
    workspace.operator.stop(run_id, graceful=False)
    wait_until(lambda: ended(workspace, run_id))


def test_a_lost_run_is_asked_about_once(workspace: Workspace, write_recipe: Write, wait_until: Wait,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="kill")))
    wait_until(lambda: ended(workspace, run_id))
    monkeypatch.setattr(lookout, "_HOLD_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(job, "state", lambda *_: pytest.fail("the machine was asked again"))
        assert workspace.operator.state(run_id).word is Word.LOST
    workspace.operator.resume(run_id)
    assert wait_until(lambda: ended(workspace, run_id)).word is Word.FINISHED


def test_an_unknown_run_names_the_nearest(workspace: Workspace, make_run: Callable[..., Any]) -> None:
    make_run("tiny-20261121")
    workspace.ingest()
    with pytest.raises(NotFound) as caught:
        workspace.operator.state("tiny-20261112")
    assert "tiny-20261121" in caught.value.next


def test_the_real_command_is_the_supervisor(tmp_path: Path) -> None:
    argv = operator_module.pipeline_argv(("/usr/bin/python3",), "/base/runs/tiny-1")
    assert argv == ["/usr/bin/python3", "-m", "engine", "run", "--run-dir", "/base/runs/tiny-1"]


def test_a_stage_that_a_signal_holds_is_silent_until_it_goes_on(workspace: Workspace, write_recipe: Write,
                                                                wait_until: Wait) -> None:
    """Its supervisor lives and writes samples all the while; what it says of its stage decides."""
    run_id = workspace.operator.start(workspace.operator.plan(write_recipe(title="sleep:30")))
    wait_until(lambda: workspace.ingest() >= 0 and workspace.operator.state(run_id).word is Word.RUNNING)
    run = workspace.queries.run(run_id)
    assert run is not None
    events = EventWriter(runs_dir(base_dir()) / run_id / "events.jsonl", run=run_id, stage=run.last_stage)
    events.alert("warning", PAUSED, "A was stopped by a signal", "kill -CONT 7")
    workspace.ingest()
    state = workspace.operator.state(run_id)
    assert (state.word, state.text) == (Word.SILENT, "SILENT: A was stopped by a signal; kill -CONT 7")
    events.alert("info", CONTINUED, "A goes on")
    workspace.ingest()
    assert workspace.operator.state(run_id).word is Word.RUNNING
    workspace.operator.stop(run_id, graceful=False)

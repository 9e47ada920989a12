"""The life of a run: plan, start, stop, resume, and how it is now. Screens and verbs both drive this one object.

Each decision is written to the ledger before its effect and is carried out again by `recover` when a crash came between;
every effect can be repeated without harm, so there is exactly one start however often somebody presses the key. It knows
machines only through the Host protocol, and nothing of terminals.
"""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import runstate
from console.errors import Conflict, ConsoleError, NotFound, Refused
from console.ledger import CANCELLED, FAILED, KILL, RESUME, START, STOP, Attempt, Intent, Ledger
from console.plan import Plan, make_plan
from console.runlog import apply
from console.runlog.db import transaction
from console.runlog.queries import Run
from console.runstate import RunState, Word
from console.targets import LOCAL, host_for
from engine.context import ATTEMPT
from engine.rundir import RunDir, base_dir, runs_dir, valid_run_id
from remote import job
from remote.errors import CommandTimeout, HostUnreachable, NoSuchFile, RemoteError

if TYPE_CHECKING:
    from console.workspace import Workspace
    from remote.host import Host

TAIL_LINES, _TAIL_BYTES = 20, 1 << 15
STOP_GRACE_S = 600.0  # a stage gets this long to finish its step and save
_HOLD_S, _HOLD_WHILE_MOVING_S, _MOVING_S = 1.0, 15.0, 4.0

_ENDED = ("finished", "failed", "stopped")
_PAST = {START: "started", RESUME: "resumed", STOP: "stopped", KILL: "killed"}

Pipeline = Callable[[Sequence[str], str], list[str]]


def pipeline_argv(python: Sequence[str], run_dir: str) -> list[str]:
    """The box-side supervisor for a run folder whose run.json is there."""
    return [*python, "-m", "engine", "run", "--run-dir", run_dir]


class Operator:
    """Safe to call from several threads; one decision is carried out at a time.

    `pipeline` builds the command that a job runs: the real supervisor, or a stand-in of a test.
    """

    def __init__(self, workspace: Workspace, pipeline: Pipeline = pipeline_argv) -> None:
        self._workspace, self._pipeline = workspace, pipeline
        self.ledger = Ledger(workspace.ledger_reader, workspace.ledger_writer, workspace.guard)
        self._effects = threading.Lock()
        self._seen: dict[str, tuple[float, job.JobState]] = {}

    # deciding

    def plan(self, recipe: str, target: str = LOCAL, overrides: Mapping[str, Any] | None = None,
             run_id: str | None = None) -> Plan:
        """What a start would do; nothing is written. `overrides` are "stage.setting": value.

        Raises ConfigError for an unknown recipe, stage, setting or value, and NotFound for an unknown target.
        """
        running = [run.id for run in self._workspace.queries.runs(50)
                   if run.target == target and run.reported in (None, "started") and self.state(run.id, tail=False).alive]
        folders = [self._workspace.home.recipes]
        return make_plan(host_for(target), recipe, target, overrides or {}, run_id, folders, running)

    def start(self, plan: Plan) -> str:
        """Start the planned run and return its id. Doing it again with the same plan or id changes nothing."""
        self._require_writer()
        if not valid_run_id(plan.run):
            raise ConsoleError(f"{plan.run!r} cannot be a run's id", "use letters, digits, '.', '_' and '-', at most 80")
        with self._effects:
            if self._is_known_start(plan):
                return plan.run
            if plan.problems:
                raise Refused("not started: " + "; ".join(plan.problems))
            intent = self.ledger.intend(plan.run, 1, START, plan.target, {"path": plan.path, "description": plan.description})
            self._carry_out(intent)
        return plan.run

    def _is_known_start(self, plan: Plan) -> bool:
        for intent in self.ledger.intents(plan.run):
            if intent.action == START:
                if intent.detail["description"].get("stages") != plan.description.get("stages"):
                    raise Conflict(f"a run called {plan.run} was already started with other settings",
                                   "choose another --id")
                if intent.outcome is None:
                    self._carry_out(intent)
                return True
        return False

    def resume(self, run_id: str) -> int:
        """Start a new attempt of a run that failed, was stopped or got lost; the attempt's number."""
        self._require_writer()
        with self._effects:
            state = self.state(run_id, tail=False)
            if state.word not in runstate.RESUMABLE:
                raise Conflict(f"{run_id} is {state.word}, so there is nothing to resume",
                               "" if state.alive else "start a new run instead")
            target, path = self.locate(run_id)
            intent = self.ledger.intend(run_id, state.attempt + 1, RESUME, target, {"path": path})
            self._carry_out(intent)
            return intent.attempt

    def stop(self, run_id: str, graceful: bool = True) -> RunState:
        """Ask the run to finish its step, save and end (SIGTERM), or end it at once; its state right after."""
        self._require_writer()
        with self._effects:
            state = self.state(run_id, tail=False)
            if not state.alive:
                return state
            if self._cancel_pending(run_id):
                return self.state(run_id, tail=False)
            target, path = self.locate(run_id)
            action = STOP if graceful else KILL
            self._carry_out(self.ledger.intend(run_id, state.attempt, action, target, {"path": path}), again=True)
            return self.state(run_id, tail=False)

    def _cancel_pending(self, run_id: str) -> bool:
        """Decisions to start that were not carried out yet never will be."""
        waiting = [i for i in self.ledger.pending() if i.run == run_id and i.action in (START, RESUME)]
        for intent in waiting:
            self.ledger.settle(intent, CANCELLED)
        return bool(waiting)

    # carrying out

    def recover(self) -> list[str]:
        """Carry out what was decided before a crash; sentences about what that was. Called when a writer opens."""
        told = []
        for intent in self.ledger.pending():
            with self._effects:
                try:
                    self._carry_out(intent)
                    told.append(f"Carried out what was interrupted: {intent.action} of {intent.run}.")
                except ConsoleError as error:
                    told.append(f"Could not carry out the interrupted {intent.action} of {intent.run}: {error}")
        return told

    def _carry_out(self, intent: Intent, again: bool = False) -> None:
        """The effect of one intent; every step may have been done already."""
        if intent.outcome is not None and not again:
            return
        host, path = host_for(intent.target), str(intent.detail["path"])
        try:
            if intent.action in (STOP, KILL):
                job.request_stop(host, _job_dir(path), STOP_GRACE_S if intent.action == STOP else 0.0)
                self.ledger.settle(intent, "signalled")
            else:
                self._launch(host, intent, path)
        except (HostUnreachable, CommandTimeout) as error:  # it may have happened: the intent stays, recover asks again
            raise ConsoleError(f"{intent.run}: no answer from {intent.target} ({error}), so it is not known whether the "
                               f"{intent.action} happened", "it is tried again when llmconsole starts next") from error
        except (RemoteError, OSError) as error:
            self.ledger.settle(intent, f"{FAILED}{error}")
            raise ConsoleError(f"{intent.run} could not be {_PAST[intent.action]}: {error}") from error
        self._seen.pop(intent.run, None)

    def _launch(self, host: Host, intent: Intent, path: str) -> None:
        if intent.action == START:
            self._write_run_json(host, path, intent)
        self._register(intent, path)
        job.launch(host, _job_dir(path), intent.attempt, self._pipeline(host.python, path), {ATTEMPT: str(intent.attempt)})
        self.ledger.launched(intent, path)
        self._workspace.watch(intent.run)

    def _write_run_json(self, host: Host, path: str, intent: Intent) -> None:
        """The run folder begins with run.json, which appears whole; one that is there is left alone."""
        from console.jsontext import dump

        target = str(RunDir(Path(path)).run_json)
        if host.stat(target) is not None:
            return
        local = self._workspace.home.path / f"{intent.run}.run.json"
        local.write_text(dump(intent.detail["description"], indent=2) + "\n", encoding="utf-8")
        try:
            host.put(local, target)
        finally:
            local.unlink()

    def _register(self, intent: Intent, path: str) -> None:
        """Show the run at once, before its first event is read."""
        description = intent.detail.get("description")
        runlog = self._workspace.runlog
        if description is not None and runlog is not None:
            with self._workspace.guard, transaction(runlog):
                apply.describe(runlog, intent.run, intent.target, path, description)

    def _require_writer(self) -> None:
        if self._workspace.read_only:
            owner = self._workspace.owner
            if owner is None:
                raise Refused("this console is read-only, so it starts and stops nothing", "open it without --read-only")
            raise Conflict(f"another llmconsole owns the run log: {owner}; this one is read-only, so it starts and stops "
                           "nothing", "use that one, or close it and try again")

    # looking

    def locate(self, run_id: str) -> tuple[str, str]:
        """Target and folder of a run. Raises NotFound with the nearest name."""
        run = self._workspace.queries.run(run_id)
        if run:
            return run.target, run.path
        for intent in self.ledger.intents(run_id):
            return intent.target, str(intent.detail["path"])
        folder = runs_dir(base_dir()) / run_id
        if valid_run_id(run_id) and RunDir(folder).run_json.exists():
            return LOCAL, str(folder)
        known = [run.id for run in self._workspace.queries.runs()]
        close = difflib.get_close_matches(run_id, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else "llmconsole run list shows all runs" if known else "there are no runs yet"
        raise NotFound(f"no run is called {run_id!r}", hint)

    def state(self, run_id: str, *, tail: bool = True) -> RunState:
        """How the run is now, asked from the box where needed; `tail` adds the last lines of the stage's log."""
        target, path = self.locate(run_id)
        run = self._workspace.queries.run(run_id)
        state = self._state(run_id, target, path, run, self.ledger.last_attempt(run_id), self.ledger.last_launch(run_id), True)
        return replace(state, log_tail=self.log_tail(host_for(target), path, state.stage, state.attempt)) if tail else state

    def states(self, runs: Iterable[Run], *, ask: bool = True) -> dict[str, RunState]:
        """The states of many runs for a list; only those that have not reported an end cost a look at the box.

        Without `ask` no box is looked at, and the age of the last known event decides.
        """
        attempts, launches = self.ledger.last_attempts(), self.ledger.last_launches()
        return {r.id: self._state(r.id, r.target, r.path, r, attempts.get(r.id), launches.get(r.id), ask) for r in runs}

    def _state(self, run_id: str, target: str, path: str, run: Run | None, launched: Attempt | None, intent: Intent | None,
               ask: bool) -> RunState:
        host, now = host_for(target), time.time()
        number = max(launched.attempt if launched else 0, run.attempt if run else 0)
        pending = intent is not None and intent.outcome is None
        ended = run is not None and run.reported in _ENDED and run.attempt >= number
        sign = self._last_sign(host, path, run, ask and not ended)
        found = job.JobState("unknown")
        if ask and not ended and not pending:
            found = self._job(run_id, host, path, sign is not None and now - sign < _MOVING_S)
            if found.state == "absent" and launched is None:
                found = job.JobState("unknown")  # started by hand, or never
        unlaunched = intent is not None and intent.attempt > number and not pending
        word, code = runstate.derive(runstate.Facts(
            pending=pending, never_launched=intent.outcome if intent and unlaunched else None, job=found.state,
            exit_code=found.code if found.signal is None else -found.signal, stopping=found.stopping,
            reported=run.reported if run and run.attempt >= number else None, reported_exit=run.exit_code if run else None,
            last_sign=sign, now=now))
        number = max(number, found.attempt or 0, intent.attempt if intent else 0, 1)
        stage = run.last_stage if run else None
        text, hint = runstate.explain(word, code, stage, sign, self._reason(run_id, run, word, intent), number, now)
        if found.stopping and word in runstate.ALIVE:
            text += "; it was asked to stop"
        return RunState(run_id, word, number, code, stage, sign, text, hint)

    def _job(self, run_id: str, host: Host, path: str, moving: bool) -> job.JobState:
        """What the box says of the job. Asking starts a process there, so an answer is kept for a moment, and for
        longer while fresh events or log lines show that the run is alive."""
        held = self._seen.get(run_id)
        age = time.monotonic() - held[0] if held else 0.0
        if held is None or age > (_HOLD_WHILE_MOVING_S if moving and held[1].state == "running" else _HOLD_S):
            held = self._seen[run_id] = (time.monotonic(), job.state(host, _job_dir(path)))
        return held[1]

    def _last_sign(self, host: Host, path: str, run: Run | None, look: bool) -> float | None:
        """The newest of: event known, event file changed, log changed."""
        signs = [run.last_event] if run else []
        if look:
            folder = RunDir(Path(path))
            files = [folder.events] + ([folder.stage_log(run.last_stage)] if run and run.last_stage else [])
            signs += [found.mtime for found in (host.stat(str(file)) for file in files) if found]
        return max((sign for sign in signs if sign), default=None)

    def _reason(self, run_id: str, run: Run | None, word: Word, intent: Intent | None) -> str | None:
        """Why it failed: in the stage's own words, else the supervisor's, else the launcher's."""
        if word is not Word.FAILED:
            return None
        if intent and intent.outcome and intent.outcome.startswith(FAILED):
            return f"it could not be launched: {intent.outcome[len(FAILED):]}"
        alerts = [a for a in self._workspace.queries.alerts(run_id, limit=20)
                  if a.data.get("level") == "error" and run is not None and a.attempt == run.attempt]
        return str(alerts[-1].data.get("text", "")) if alerts else (run.reason if run else None)

    def log_tail(self, host: Host, path: str, stage: str | None, attempt: int) -> tuple[str, ...]:
        """The last lines of a stage's log, or of the supervisor's own output where no stage has written."""
        folder = RunDir(Path(path))
        for file in ([str(folder.stage_log(stage))] if stage else []) + [job_log(path, attempt)]:
            found = host.stat(file)
            if found and found.size:
                try:
                    data = host.read(file, max(0, found.size - _TAIL_BYTES), _TAIL_BYTES)
                except NoSuchFile:
                    continue
                return tuple(data.decode("utf-8", "replace").splitlines()[-TAIL_LINES:])
        return ()


def _job_dir(path: str) -> str:
    return str(RunDir(Path(path)).job)


def job_log(path: str, attempt: int) -> str:
    """What the supervisor itself printed in one attempt, outside of any stage."""
    return str(RunDir(Path(path)).job / f"output.{attempt}.log")

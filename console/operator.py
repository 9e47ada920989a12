"""The life of a run: plan, start, stop, resume, and how it is now. Screens and verbs both drive this one object.

Each decision is written to the ledger before its effect, and `recover` carries it out when a crash came between; every
effect can be repeated without harm, so there is exactly one start however often somebody presses the key. It knows
machines only through the Host protocol, and nothing of terminals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import runstate
from console.errors import Conflict, ConsoleError, Refused, UsageProblem
from console.ledger import CANCELLED, FAILED, KILL, RESUME, START, STOP, Intent, Ledger
from console.lookout import Lookout, job_dir
from console.machines.stage_secrets import needed, taking, values
from console.machines.targets import LOCAL
from console.plan import Plan, make_plan
from console.rental.rentals import Rentals
from console.runlog import apply
from console.runlog.db import transaction
from console.runlog.queries import ATTACHED, REPLAYED, Run
from console.runstate import RunState
from engine.context import ATTEMPT
from engine.rundir import BASE, RunDir, valid_run_id
from remote import job
from remote.errors import CommandTimeout, HostUnreachable, RemoteError

if TYPE_CHECKING:
    from console.workspace import Workspace
    from remote.host import Host

STOP_GRACE_S = 600.0  # a stage gets this long to finish its step and save

_PAST = {START: "started", RESUME: "resumed", STOP: "stopped", KILL: "killed"}

Pipeline = Callable[[Sequence[str], str], list[str]]


def pipeline_argv(python: Sequence[str], run_dir: str) -> list[str]:
    """The box-side supervisor for a run folder whose run.json is there; for a run that is followed or played again,
    what does that here."""
    with suppress(OSError, ValueError):
        described = RunDir(Path(run_dir)).read()
        for kind in (ATTACHED, REPLAYED):
            if kind in described:
                return [*python, "-m", f"console.{kind}", run_dir]
    return [*python, "-m", "engine", "run", "--run-dir", run_dir]


class Operator:
    """Safe to call from several threads; one decision is carried out at a time.

    `pipeline` builds the command that a job runs: the real supervisor, or a stand-in of a test.
    """

    def __init__(self, workspace: Workspace, pipeline: Pipeline | None = None) -> None:
        self._workspace, self._pipeline = workspace, pipeline or pipeline_argv
        self.ledger = Ledger(workspace.ledger_reader, workspace.ledger_writer, workspace.guard)
        self._effects = threading.Lock()
        self.rentals = Rentals(workspace, self)
        self._lookout = Lookout(workspace.home, workspace.queries, self.ledger, workspace.hosts, self.rentals.book)

    def locate(self, run_id: str) -> tuple[str, str]:
        """Target and folder of a run. Raises NotFound with the nearest name."""
        return self._lookout.locate(run_id)

    def state(self, run_id: str, *, tail: bool = True, fresh: bool = False) -> RunState:
        """How the run is now; `tail` adds the last lines of the stage's log. Raises NotFound.

        The box's own answer may be some seconds old while events show that the run is alive; `fresh` asks anew.
        """
        return self._lookout.state(run_id, tail=tail, fresh=fresh)

    def states(self, runs: Iterable[Run], *, ask: bool = True) -> dict[str, RunState]:
        """How many runs are, for a list, by id; without `ask` no machine is looked at."""
        return self._lookout.states(runs, ask=ask)

    def plan(self, recipe: str, target: str = LOCAL, overrides: Mapping[str, Any] | None = None,
             run_id: str | None = None) -> Plan:
        """What a start would do; nothing is written. `overrides` are "stage.setting": value.

        Raises ConfigError for an unknown recipe, stage, setting or value, and NotFound for an unknown target.
        """
        recent = [run for run in self._workspace.queries.runs(50) if run.target == target]
        ours = [run for run in recent if run.attached is None]  # following another run costs nothing
        running = [run for run, state in self.states(ours).items() if state.alive]
        folders = [self._workspace.home.recipes]
        hosts = self._workspace.hosts
        return make_plan(hosts.get(target), recipe, hosts.target(target), overrides or {}, run_id, folders, running)

    def start(self, plan: Plan) -> str:
        """Start the planned run and return its id. Doing it again with the same plan or id changes nothing."""
        self.require_writer()
        if not valid_run_id(plan.run):
            raise UsageProblem(f"{plan.run!r} cannot name a run", "use letters, digits, '.', '_' and '-', at most 80")
        with self._effects:
            if self._is_known_start(plan):
                return plan.run
            if plan.problems:
                raise Refused("not started: " + "; ".join(plan.problems))
            detail = {"path": plan.path, "description": plan.description}
            self._carry_out(self.ledger.intend(plan.run, 1, START, plan.target, detail))
        return plan.run

    def begin(self, run: str, attempt: int, target: str, path: str, description: dict[str, Any]) -> None:
        """Launch an attempt that was decided elsewhere, by a rental's life, exactly once; repeating changes nothing."""
        self.require_writer()
        action, detail = (START, {"description": description}) if attempt == 1 else (RESUME, {})
        with self._effects:
            self._carry_out(self.ledger.intend(run, attempt, action, target, {"path": path, **detail}))

    def announce(self, run: str, target: str, path: str, description: dict[str, Any]) -> None:
        """Show a run that will be launched later."""
        runlog = self._workspace.runlog
        if runlog is not None:
            with self._workspace.guard, transaction(runlog):
                apply.describe(runlog, run, target, path, description)

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
        self.require_writer()
        with self._effects:
            state = self.state(run_id, tail=False)
            if state.word not in runstate.RESUMABLE:
                raise Conflict(f"{run_id} is {state.word}, so there is nothing to resume",
                               "" if state.alive else "start a new run instead")
            if (rental := self.rentals.book.of_run(run_id)) is not None:
                self.rentals.resume(rental, state.attempt + 1)
                return state.attempt + 1
            target, path = self.locate(run_id)
            intent = self.ledger.intend(run_id, state.attempt + 1, RESUME, target, {"path": path})
            self._carry_out(intent)
            return intent.attempt

    def stop(self, run_id: str, graceful: bool = True) -> RunState:
        """Ask the run to finish its step, save and end (SIGTERM), or end it at once; its state right after."""
        self.require_writer()
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
        host, path = self._workspace.hosts.get(intent.target), str(intent.detail["path"])
        try:
            if intent.action in (STOP, KILL):
                job.request_stop(host, job_dir(path), STOP_GRACE_S if intent.action == STOP else 0.0)
                self.ledger.settle(intent, "signalled")
            else:
                self._launch(host, intent, path)
        except (HostUnreachable, CommandTimeout) as error:  # it may have happened: the intent stays, recover asks again
            raise ConsoleError(f"{intent.run}: no answer from {intent.target} ({error}), so nobody knows whether "
                               f"the {intent.action} happened",
                               "it is tried again when llmconsole starts next") from error
        except (RemoteError, OSError) as error:
            self.ledger.settle(intent, f"{FAILED}{error}")
            raise ConsoleError(f"{intent.run} could not be {_PAST[intent.action]}: {error}") from error
        self._lookout.forget(intent.run)

    def _launch(self, host: Host, intent: Intent, path: str) -> None:
        if intent.action == START:
            self._write_run_json(host, path, intent)
        self._register(intent, path)
        target = self._workspace.hosts.target(intent.target)
        wanted = needed(intent.detail.get("description") or self._description(intent.run), target.env)
        secret = values([name for name in wanted if name not in target.secrets], self._workspace.home.path)
        env = {**target.env, **secret, ATTEMPT: str(intent.attempt)}
        if target.base:  # elsewhere nobody set it for us
            env[BASE] = target.base
        argv = taking([name for name in wanted if name in target.secrets], self._pipeline(host.python, path))
        job.launch(host, job_dir(path), intent.attempt, argv, env)
        self.ledger.launched(intent, path)
        self._workspace.watch(intent.run)

    def _description(self, run: str) -> Mapping[str, Any]:
        """What was started under this id; {} for a run that another console started."""
        starts = (intent for intent in self.ledger.intents(run) if intent.action == START)
        return next((intent.detail["description"] for intent in starts), {})

    def _write_run_json(self, host: Host, path: str, intent: Intent) -> None:
        """The run folder begins with run.json, which appears whole; one that is there is left alone."""
        from console.jsontext import dump

        target = str(RunDir(Path(path)).run_json)
        local = self._workspace.home.path / f"{intent.run}.run.json"
        try:
            if host.stat(target) is None:
                local.write_text(dump(intent.detail["description"], indent=2) + "\n", encoding="utf-8")
                host.put(local, target)
        finally:
            local.unlink(missing_ok=True)

    def _register(self, intent: Intent, path: str) -> None:
        """Show the run at once, before its first event is read."""
        if (description := intent.detail.get("description")) is not None:
            self.announce(intent.run, intent.target, path, description)

    def require_writer(self) -> None:
        """Raises Refused or Conflict where this console may change nothing."""
        if self._workspace.hands_off:
            raise Refused("this console is read-only by your own wish: it starts and stops nothing",
                          "the palette (ctrl+p) switches that off")
        if self._workspace.read_only:
            owner = self._workspace.owner
            if owner is None:
                raise Refused("this console is read-only: it starts and stops nothing", "open it without --read-only")
            raise Conflict(f"another llmconsole owns the run log: {owner}; this one is read-only: it starts and stops "
                           "nothing", "use that one, or close it and try again")

"""What the screens show at one moment, read once from the run log and the operator, as plain frozen records.

Screens never ask a database: a background thread makes a Glance, a handler shows it. No widget is known here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.machines.mirror import folder_of
from console.pulse import Pulse, Signs, pulse
from console.rental.book import Entry
from console.rental.money import NOTHING_RENTED, Money
from console.rental.rental import Rental
from console.runlog.queries import ATTACHED, Checkpoint, Eval, Latest, Run, RunEvent, Stage, SystemFacts
from engine.rundir import RunDir

if TYPE_CHECKING:
    from console.ledger import Intent
    from console.operator import Operator
    from console.runstate import RunState
    from console.workspace import Workspace

_ACTIVITY = ("run", "stage", "eval", "sample", "checkpoint", "log-mark", "alert")
NEWEST_EVENTS = 300
JOURNAL = 100
RECENT = 12  # runs in Home's list; every run's state costs a look at its folder


@dataclass(frozen=True)
class RunRow:
    """One line of the list of runs."""

    run: Run
    word: str


@dataclass(frozen=True)
class RunDetail:
    """Everything that is shown of the run in front."""

    run: Run
    state: RunState
    stages: tuple[Stage, ...]
    latest: dict[str, dict[str, Latest]]  # by stage id, then by name
    system: SystemFacts | None
    checkpoints: tuple[Checkpoint, ...]
    alerts: tuple[RunEvent, ...]
    evals: tuple[Eval, ...]
    events: tuple[RunEvent, ...]  # the newest, commands that were run for the person among them
    log_changed: float | None  # when the log of the stage in question last grew on this machine
    folder: RunDir  # where its events and logs are read on this machine: its own folder, or the copy of a far one

    def pulse(self, now: float) -> Pulse:
        """Whether the stage that runs still steps."""
        stage = self.stage(self.state.stage)
        if str(self.state.word) != "running" or stage is None or stage.state != "started":
            return Pulse()
        stepped = [value for value in self.latest.get(stage.id, {}).values() if value.step is not None]
        newest = max(stepped, key=lambda value: value.t, default=None)
        per_step = next((value.value for value in stepped if value.name == "dt"), None)
        here = self.run.target == "local"  # clocks of two machines are never compared
        return pulse(Signs(stage.started if here else None, newest.step if newest else None,
                           newest.t if newest and here else None, per_step, self.log_changed), now)

    def stage(self, stage_id: str | None) -> Stage | None:
        return next((stage for stage in self.stages if stage.id == stage_id), None)

    @property
    def charted(self) -> list[str]:
        """Ids of the stages that have curves, in order."""
        return [stage.id for stage in self.stages if any("/" not in name for name in self.latest.get(stage.id, {}))]

    @property
    def elapsed(self) -> tuple[float | None, float | None]:
        """When it started, and when it ended if it has."""
        ended = self.run.ended if not self.state.alive else None
        return self.run.started, ended or (None if self.state.alive else self.state.last_sign)


@dataclass(frozen=True)
class Side:
    """What is shown of a run that another one is compared with."""

    run: Run
    stages: tuple[Stage, ...]
    evals: tuple[Eval, ...]

    def like(self, stage: Stage | None) -> Stage | None:
        """Its newest stage of the same kind."""
        return next((each for each in reversed(self.stages) if stage and each.stage == stage.stage), None)


@dataclass(frozen=True)
class Rented:
    """Rented machines at one moment. `here` is the one of the run in front, `journal` its life so far."""

    money: Money = NOTHING_RENTED
    alive: tuple[Rental, ...] = ()
    here: Rental | None = None
    journal: tuple[Entry, ...] = ()
    trouble: str = ""
    target: str = ""  # where runs go by themselves, '' for what the settings say


NOBODY = Rented()


@dataclass(frozen=True)
class Glance:
    runs: tuple[RunRow, ...]
    detail: RunDetail | None
    rented: Rented = NOBODY
    beside: tuple[Side, ...] = ()  # runs that the one in front is compared with


class StateDesk:
    """States of runs, asked from their machines only when their events say something new or some seconds have passed.

    Asking starts a process there; a screen that asked each second would cost more than all its drawing.
    """

    HOLD_S = 5.0

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._held: dict[str, tuple[object, float, RunState]] = {}

    def forget(self) -> None:
        self._held.clear()

    def states(self, runs: Sequence[Run]) -> dict[str, RunState]:
        now = time.monotonic()
        due = [run for run in runs if not self._fresh(run, now)]
        for run_id, state in self._operator.states(due).items() if due else ():
            run = next(run for run in due if run.id == run_id)
            self._held[run_id] = (_signs(run), now, state)
        return {run.id: self._held[run.id][2] for run in runs}

    def _fresh(self, run: Run, now: float) -> bool:
        held = self._held.get(run.id)
        return held is not None and held[0] == _signs(run) and now - held[1] < self.HOLD_S


def _signs(run: Run) -> object:
    return run.reported, run.attempt, run.last_stage, run.ended


def look(workspace: Workspace, desk: StateDesk, run_id: str | None, beside: Sequence[str] = ()) -> Glance:
    """Read it all; `run_id` None means the newest run, `beside` are those that it is compared with."""
    runs = workspace.queries.runs(RECENT)
    chosen = workspace.queries.run(run_id) if run_id else (runs[0] if runs else None)
    states = desk.states([*runs, *([chosen] if chosen and chosen not in runs else [])])
    rows = tuple(RunRow(run, str(states[run.id].word)) for run in runs)
    found = detail(workspace, chosen, states[chosen.id]) if chosen else None
    others = tuple(side for other in beside if (side := side_of(workspace, other)) and side.run != chosen)
    return Glance(rows, found, rented(workspace, chosen.id if chosen else None), others)


def side_of(workspace: Workspace, run_id: str) -> Side | None:
    """A run to compare with; None when there is none of this name."""
    queries, run = workspace.queries, workspace.queries.run(run_id)
    return Side(run, tuple(queries.stages(run_id)), tuple(queries.evals(run_id))) if run else None


def rented(workspace: Workspace, run_id: str | None) -> Rented:
    """The ledger's side of things; a machine is asked nothing for it."""
    rentals = workspace.operator.rentals
    alive = tuple(rentals.book.unsettled())
    here = rentals.book.of_run(run_id) if run_id else None
    journal = tuple(rentals.book.journal(here.id, JOURNAL)) if here else ()
    return Rented(rentals.money(), alive, here, journal, rentals.trouble, workspace.hosts.targets.default)


def detail(workspace: Workspace, run: Run, state: RunState) -> RunDetail:
    """One run in full."""
    queries, run_id = workspace.queries, run.id
    stages = tuple(queries.stages(run_id))
    latest = {stage.id: queries.latest_metrics(run_id, stage.id) for stage in stages if stage.state != "waiting"}
    folder = folder_of(workspace.home, run_id, run.target, run.path)
    return RunDetail(run, state, stages, latest, queries.system_latest(run_id), tuple(queries.checkpoints(run_id)),
                     tuple(queries.alerts(run_id, 50)), tuple(queries.evals(run_id)), _activity(workspace, run_id),
                     _changed(folder, state.stage), folder)


def _changed(folder: RunDir, stage: str | None) -> float | None:
    """When a stage's log last grew here; None where there is none."""
    if stage is None:
        return None
    with suppress(FileNotFoundError):
        return folder.stage_log(stage).stat().st_mtime
    return None


def _command(intent: Intent) -> str:
    """The verb that does the same."""
    what = intent.detail.get("description", {}).get(ATTACHED)
    if what is None:
        return f"llmconsole run {intent.action} {intent.run}"
    option = f"--log {what['log']}" if what["log"] else f"--dir {what['dir']}"
    return f"llmconsole run attach --target {what['target']} {option} --id {intent.run}"


def _activity(workspace: Workspace, run_id: str) -> tuple[RunEvent, ...]:
    """Events and the operator's own commands in order of time; a command's place is below zero."""
    events = workspace.queries.events(run_id, kinds=_ACTIVITY, limit=NEWEST_EVENTS)
    for intent in workspace.operator.ledger.intents(run_id):
        data = {"action": intent.action, "outcome": intent.outcome, "cli": _command(intent)}
        events.append(RunEvent(run_id, -intent.id, intent.attempt, intent.created, "command", None, None, data))
    book = workspace.operator.rentals.book
    if (here := book.of_run(run_id)) is not None:
        for number, entry in enumerate(book.journal(here.id, JOURNAL), 1):
            data = {"phase": entry.phase, "text": entry.text}
            events.append(RunEvent(run_id, -1_000_000 - number, 0, entry.at, "rental", None, None, data))
    return tuple(sorted(events, key=lambda event: event.t))

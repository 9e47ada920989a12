"""Waiting for a run's end, with a line of commentary per stage. Holds no lock, so a screen may be opened meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import click

from console.cli.output import duration, emit_json, note
from console.cli.workspace import fresh_workspace
from console.errors import ConsoleError, NotFound
from console.exit_codes import Exit
from console.machines.hosts import Hosts
from console.runstate import RunState, Word
from console.workspace import Workspace
from engine.events import Event, parse_line, split_lines
from engine.rundir import RunDir
from remote.errors import HostUnreachable, NoSuchFile

_POLL_S = 0.5


class WaitedTooLong(ConsoleError):
    exit = Exit.TIMEOUT


def wait_and_report(ctx: click.Context, run_id: str, timeout: float | None, as_json: bool) -> int:
    """Wait, say how it ended, and return the exit code that stands for it."""
    from console.cli.run import run_facts

    state = wait_for_end(ctx, run_id, timeout)
    with fresh_workspace(ctx) as workspace:
        state = workspace.operator.state(run_id)
        if as_json:
            emit_json(run_facts(workspace, run_id))
    note(f"{run_id}: {state.text}")
    if state.word in (Word.FAILED, Word.LOST):
        for text in state.log_tail:
            note(f"  {text}")
    if state.word is not Word.FINISHED and state.next:
        note(state.next)
    return Exit.OK if state.word is Word.FINISHED else Exit.WORK_FAILED


def wait_for_end(ctx: click.Context, run_id: str, timeout: float | None) -> RunState:
    """Poll until the run is not alive. Raises a ConsoleError with exit 124 when `timeout` seconds have passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with Workspace.open(read_only=True) as workspace:
        target, path = workspace.operator.locate(run_id)
        commentary = _Commentary(workspace.hosts, target, path)
        while True:
            commentary.say()
            state = workspace.operator.state(run_id, tail=False, fresh=commentary.saw_the_end)
            if not state.alive:
                commentary.say()
                return state
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitedTooLong(f"{run_id} is still {state.word} after {timeout:g} s; it keeps running",
                                     f"llmconsole run wait {run_id} waits on")
            time.sleep(_POLL_S)


class _Commentary:
    """Stages that begin and end, and alerts, as they come."""

    def __init__(self, hosts: Hosts, target: str, path: str) -> None:
        self._hosts, self._target, self._events = hosts, target, str(RunDir(Path(path)).events)
        self._offset, self._since = 0, time.time() - 5
        self.saw_the_end = False

    def say(self) -> None:
        try:
            with self._hosts.contact(self._target) as host:
                lines, used = split_lines(host.read(self._events, self._offset))
        except NoSuchFile:  # the supervisor has not begun yet
            return
        except (HostUnreachable, NotFound):  # silent, or given back: the state says so
            return
        self._offset += used
        for line in lines:
            event = parse_line(line)
            if event and event.kind == "run":
                self.saw_the_end = event.data.get("state") != "started"
            if event and event.t >= self._since and (text := _words(event)):
                note(text)


def _words(event: Event) -> str:
    state = event.data.get("state")
    if event.kind == "stage" and state == "started":
        return f"{time.strftime('%H:%M:%S', time.localtime(event.t))}  {event.stage} begins"
    if event.kind == "stage" and state in ("finished", "failed", "stopped", "skipped"):
        seconds = event.data.get("seconds")
        took = f" after {duration(seconds)}" if isinstance(seconds, (int, float)) else ""
        return f"{time.strftime('%H:%M:%S', time.localtime(event.t))}  {event.stage} {state}{took}"
    if event.kind == "alert":
        return f"{event.data.get('level', 'alert')}: {event.data.get('text', '')}"
    return ""

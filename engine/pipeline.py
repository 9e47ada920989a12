"""The supervisor on the box: runs a recipe's stages one after another, each as a process of its own.

It skips what is done, lets half-done stages resume, writes the run's events, and passes SIGTERM on. The laptop may be
closed meanwhile. It refuses to know what a stage computes, who started it, or what a screen is, and it never imports a
tensor library: a crash in there ends a stage, not the run's bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import child, machine, recipe
from engine.config import ConfigError
from engine.context import ATTEMPT, EXIT_STOPPED
from engine.events import CONTINUED, PAUSED, EventWriter
from engine.plan import TORCHRUN, PlannedStage, planned, stage_argv, stage_env
from engine.rundir import DISK_ADVICE, RunDir, disk_full, valid_run_id, write_atomic
from engine.stage_lock import AnotherSupervisor, StageLock

EXIT_FAILED = 1
SAMPLE_EVERY = 2.0  # seconds between two system events

BuildArgv = Callable[[PlannedStage], list[str]]


def main(argv: Sequence[str]) -> int:
    """`python -m engine run [RECIPE] --run-dir DIR [--set stage.key=value]`. Raises ConfigError."""
    parser = argparse.ArgumentParser(prog="python -m engine run", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", help="name of a recipe, or a .toml file; left out: what run.json says")
    parser.add_argument("--run-dir", required=True, type=Path, help="the run folder; made when it is not there")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help="change one setting")
    words = parser.parse_args(list(argv))
    run = RunDir(words.run_dir.expanduser().absolute())
    prepare(run, words.recipe, words.set)
    gpus = machine.usable_gpus()
    return Supervisor(run, lambda step: stage_argv(step, gpus)).run()


def prepare(run: RunDir, recipe_name: str | None, overrides: Sequence[str]) -> None:
    """Make the run folder and run.json where they are missing. Raises ConfigError."""
    if not valid_run_id(run.id):
        raise ConfigError(f"{run.id!r} cannot name a run: letters, digits, '.', '_' and '-' only, at most 80")
    if run.run_json.exists():
        known = _description(run).get("recipe")
        if overrides or recipe_name not in (None, known):
            raise ConfigError(f"{run.path} is a run of {known}, whose recipe and settings are fixed; start a new run")
        chosen = None
    elif recipe_name is None:
        raise ConfigError(f"no run.json in {run.path}, so a recipe must be named")
    else:
        chosen = recipe.with_overrides(recipe.find(recipe_name), overrides)
    for folder in (run.path, run.logs, run.done, run.job, run.base):
        folder.mkdir(parents=True, exist_ok=True)
    if chosen is not None:
        body = recipe.to_run_json(chosen, run.id, software=machine.version_of("llmconsole") or "")
        write_atomic(run.run_json, json.dumps(body, indent=2).encode() + b"\n")


def _description(run: RunDir) -> dict[str, Any]:
    try:
        return run.read()
    except ValueError as error:
        raise ConfigError(f"{run.run_json} is damaged: {error}") from None


class Supervisor:
    """Drives one run folder to its end, once. `build` makes a stage's command and raises ConfigError."""

    def __init__(self, run: RunDir, build: BuildArgv, sample_every: float = SAMPLE_EVERY) -> None:
        self._run, self._sample_every = run, sample_every
        self._description = _description(run)
        self._steps = planned(self._description)
        self._commands = {step.id: build(step) for step in self._steps}  # all of them now: bad settings fail first
        self._stop = False
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = StageLock(run.job / "stage.lock")
        self._attempt = 0
        self._events = EventWriter(None)

    def run(self) -> int:
        """The exit code: 0 finished, 75 stopped on request, 2 a stage's settings are bad, 1 anything else."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            if not self._lock.acquire(lambda: self._stop, self._say_waiting):
                return EXIT_STOPPED
        except AnotherSupervisor as error:
            print(f"{self._run.id}: {error}", file=sys.stderr, flush=True)
            return EXIT_FAILED
        try:
            return self._drive()
        except OSError as error:
            if not disk_full(error):
                raise
            print(f"{self._run.id}: the disk is full: {error}\n{DISK_ADVICE}", file=sys.stderr, flush=True)
            return EXIT_FAILED

    def _drive(self) -> int:
        self._attempt = next_attempt(self._run)
        self._events = EventWriter(self._run.events, run=self._run.id, attempt=self._attempt)
        told = {key: self._description.get(key) for key in ("recipe", "title")}
        self._event("run", state="started", **told,
                    stages=[{"id": s.id, "stage": s.stage, "title": s.title} for s in self._steps],
                    pid=os.getpid(), host=os.uname().nodename, machine=machine.facts(self._run.path))
        return self._short_of_disk() or self._run_stages()

    def _run_stages(self) -> int:
        begun = time.monotonic()
        for step in self._steps:
            if self._stop:
                return self._stopped("stopped on request", None)
            if self._run.done_mark(step.id).exists():
                self._stage_event(step, state="skipped")
            elif code := self._run_stage(step):
                return code
        self._event("run", state="finished", exit_code=0, seconds=round(time.monotonic() - begun, 3))
        return 0

    def _run_stage(self, step: PlannedStage) -> int:
        """0 when the stage finished, else the supervisor's own exit code."""
        log = self._run.stage_log(step.id)
        argv = self._commands[step.id]
        resumed = log.exists()
        begun, start = time.monotonic(), child.begin_log(log, self._attempt, argv)
        self._stage_event(step, state="started", argv=argv, log=f"logs/{log.name}", resumed=resumed)
        try:
            self._child = child.start(argv, stage_env(self._run, step, self._attempt), log, self._lock.fd)
        except OSError as error:
            return self._failed(step, EXIT_FAILED, f"could not be started: {error}", [], begun)
        try:
            self._lock.note(self._child.pid, self._stop)
            if self._stop:  # the request came while the process was being made
                self._child.send_signal(signal.SIGTERM)
            code = self._wait(self._child, step)
        finally:
            child.end(self._child)
            self._child = None
        self._lock.note(None, self._stop)
        return self._stage_ended(step, code, begun, child.last_lines(log, start))

    def _wait(self, process: subprocess.Popen[bytes], step: PlannedStage) -> int:
        sampler, ranks, paused = machine.Sampler(process.pid), TORCHRUN in self._commands[step.id], False
        while (code := child.wait(process, self._sample_every)) is None:
            self._sample(sampler)
            if machine.paused(process.pid, ranks) != paused:
                paused = not paused
                self._tell_paused(step, process.pid, paused)
        return code

    def _tell_paused(self, step: PlannedStage, pid: int, paused: bool) -> None:
        """Our samples go on meanwhile, so that without this a stage that computes nothing would seem to work."""
        told = {"level": "warning", "code": PAUSED, "next": f"kill -CONT {pid} on that machine lets it go on",
                "text": f"{step.title} was stopped by a signal (SIGSTOP) and computes nothing"}
        if not paused:
            told = {"level": "info", "code": CONTINUED, "text": f"{step.title} goes on", "next": ""}
        try:
            self._events.emit("alert", told, stage=step.id)
        except OSError as error:
            print(f"{told['text']}; no event: {error}", file=sys.stderr, flush=True)

    def _sample(self, sampler: machine.Sampler) -> None:
        try:
            self._event("system", **sampler.sample())
        except OSError as error:  # a full disk must not cost the training that goes on beside us
            print(f"no system event: {error}", file=sys.stderr, flush=True)

    def _stage_ended(self, step: PlannedStage, code: int, begun: float, tail: list[str]) -> int:
        seconds = round(time.monotonic() - begun, 3)
        if code == 0:
            mark = {"v": 1, "stage": step.id, "args": step.args, "attempt": self._attempt, "seconds": seconds,
                    "finished": time.time()}
            write_atomic(self._run.done_mark(step.id), json.dumps(mark).encode() + b"\n")
            self._stage_event(step, state="finished", exit_code=0, seconds=seconds)
            return 0
        if self._stop or code == EXIT_STOPPED:
            reason = "stopped on request" if code == EXIT_STOPPED else f"stopped on request ({child.describe(code)})"
            self._stage_event(step, state="stopped", exit_code=code, seconds=seconds, reason=reason)
            return self._stopped(reason, step.id)
        return self._failed(step, code, child.describe(code), tail, begun)

    def _failed(self, step: PlannedStage, code: int, reason: str, tail: list[str], begun: float) -> int:
        self._stage_event(step, state="failed", exit_code=code, reason=reason, tail=tail,
                          seconds=round(time.monotonic() - begun, 3), log=f"logs/{step.id}.log")
        exit_code = code if code in (1, 2) else EXIT_FAILED
        self._event("run", state="failed", exit_code=exit_code, reason=f"{step.title}: {reason}", stage=step.id)
        print(f"{step.id}: {reason}", *tail, sep="\n", file=sys.stderr, flush=True)
        return exit_code

    def _stopped(self, reason: str, stage_id: str | None) -> int:
        self._event("run", state="stopped", exit_code=EXIT_STOPPED, reason=reason, stage=stage_id)
        return EXIT_STOPPED

    def _short_of_disk(self) -> int:
        """EXIT_FAILED, said in the events, when the recipe's room is not there; 0 when it is."""
        needed = float(self._description.get("disk_gb") or 0) - child.folder_gb(self._run.base)
        free = machine.disk_free_gb(self._run.path)
        if free >= needed or all(self._run.done_mark(step.id).exists() for step in self._steps):
            return 0
        text = f"{needed:.1f} GB of disk needed under {self._run.path}, {free:.1f} GB free"
        self._events.alert("error", "disk", text, "make room there or set NANOCHAT_BASE_DIR to a larger disk")
        self._event("run", state="failed", exit_code=EXIT_FAILED, reason=text, stage=None)
        print(text, file=sys.stderr, flush=True)
        return EXIT_FAILED

    def _event(self, kind: str, **data: Any) -> None:
        self._events.emit(kind, data)

    def _stage_event(self, step: PlannedStage, **data: Any) -> None:
        body = {**data, "index": step.index, "total_stages": len(self._steps), "title": step.title}
        self._events.emit("stage", body, stage=step.id)

    def _say_waiting(self) -> None:
        print(f"{self._run.id}: waiting until the stage of an earlier attempt has saved", file=sys.stderr, flush=True)

    def _on_signal(self, signum: int, frame: object) -> None:
        if self._stop:  # once is enough: torchrun takes a second SIGTERM as leave to abandon its workers
            return
        self._stop = True
        if self._attempt:
            self._lock.note(self._child.pid if self._child else None, stopping=True)
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGTERM)


def next_attempt(run: RunDir) -> int:
    """This attempt's number: given by the launcher in the environment, else one more than the last."""
    counter = run.job / "attempt"
    given = os.environ.get(ATTEMPT)
    number = int(given) if given else (int(counter.read_text()) if counter.exists() else 0) + 1
    write_atomic(counter, f"{number}\n".encode())
    return number

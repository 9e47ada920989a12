"""How runs are now: from the run log, the ledger and, only where those cannot know, the box itself.

It looks and changes nothing. The words come from `console.runstate`; what follows from them is `console.operator`'s.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from console import runstate
from console.errors import NotFound
from console.ledger import FAILED, Attempt, Intent, Ledger
from console.machines.mirror import folder_of
from console.machines.targets import LOCAL
from console.paths import Home
from console.rental.book import RentalBook
from console.rental.rental import WORDS, Phase, sentence
from console.runlog.queries import Queries, Run
from console.runstate import RESUMABLE, RunState, Word
from engine.events import CONTINUED, PAUSED
from engine.rundir import RunDir, base_dir, runs_dir, valid_run_id
from remote import job
from remote.errors import HostUnreachable

if TYPE_CHECKING:
    from console.machines.hosts import Hosts
    from remote.host import Host

TAIL_LINES, _TAIL_BYTES = 20, 1 << 15
_HOLD_S, _HOLD_WHILE_MOVING_S, _MOVING_S = 1.0, 15.0, 4.0
_ENDED = ("finished", "failed", "stopped")


class Lookout:
    """Answers for many threads at once."""

    def __init__(self, home: Home, queries: Queries, ledger: Ledger, hosts: Hosts, book: RentalBook) -> None:
        self._home, self._queries, self._ledger, self._hosts, self._book = home, queries, ledger, hosts, book
        self._seen: dict[str, tuple[float, job.JobState]] = {}

    def forget(self, run_id: str) -> None:
        """Something was just done to this run: do not answer from memory."""
        self._seen.pop(run_id, None)

    def locate(self, run_id: str) -> tuple[str, str]:
        """Target and folder of a run. Raises NotFound with the nearest name."""
        run = self._queries.run(run_id)
        if run:
            return run.target, run.path
        for intent in self._ledger.intents(run_id):
            return intent.target, str(intent.detail["path"])
        folder = runs_dir(base_dir()) / run_id
        if valid_run_id(run_id) and RunDir(folder).run_json.exists():
            return LOCAL, str(folder)
        known = [run.id for run in self._queries.runs()]
        close = difflib.get_close_matches(run_id, known, n=1, cutoff=0.4)
        others = "llmconsole run list shows all runs" if known else "there are no runs yet"
        hint = f"did you mean {close[0]}?" if close else others
        raise NotFound(f"no run is called {run_id!r}", hint)

    def state(self, run_id: str, *, tail: bool = True, fresh: bool = False) -> RunState:
        """How the run is now, asked from the box where needed; `tail` adds the last lines of the stage's log.

        `fresh` asks the box even when it answered a moment ago.
        """
        target, path = self.locate(run_id)
        if fresh:
            self.forget(run_id)
            self._hosts.try_now(target)
        run = self._queries.run(run_id)
        attempt, launch = self._ledger.last_attempt(run_id), self._ledger.last_launch(run_id)
        state = self._rented(self._state(run_id, target, path, run, attempt, launch, True), target)
        if not tail:
            return state
        folder = folder_of(self._home, run_id, target, path)
        return replace(state, log_tail=log_tail(folder, state.stage, state.attempt))

    def states(self, runs: Iterable[Run], *, ask: bool = True) -> dict[str, RunState]:
        """The states of many runs for a list; only those that have not reported an end cost a look at the box.

        Without `ask` no box is looked at, and the age of the last known event decides.
        """
        attempts, launches = self._ledger.last_attempts(), self._ledger.last_launches()
        return {r.id: self._rented(self._state(r.id, r.target, r.path, r, attempts.get(r.id), launches.get(r.id), ask),
                                   r.target) for r in runs}

    def _rented(self, state: RunState, target: str) -> RunState:
        """What the machine's own life says where it comes before the run's: no pod yet, or none any more."""
        rental = None if target == LOCAL else self._book.of_run(state.run)
        now = time.time()
        if rental is None:
            return state
        if rental.phase in (Phase.ASKED, Phase.CREATING):
            return replace(state, word=Word.QUEUED, text=sentence(rental, now), next="")
        if rental.phase in (Phase.WAITING, Phase.PREPARING, Phase.STARTING):
            return replace(state, word=Word.STARTING, text=sentence(rental, now), next="")
        if rental.phase is Phase.HELD:
            left = f"{rental.hold_left(now) / 60:.0f} min"
            return replace(state, next=f"s resumes it there (llmconsole run resume); its machine is held {left} more")
        if rental.phase in (Phase.SAVING, Phase.COPYING, Phase.PROVING, Phase.ENDING) and not state.alive:
            return replace(state, next="its machine is being given back")
        if rental.phase is Phase.NEVER:
            return replace(state, word=Word.FAILED, text=f"FAILED: {sentence(rental, now)}", next="s starts it anew")
        if rental.phase is Phase.GONE and state.last_sign is None:
            text = f"FAILED: the machine was given back before the run began: {rental.reason}"
            return replace(state, word=Word.FAILED, text=text, next="s starts it anew")
        if rental.phase is Phase.GONE and state.word in (Word.LOST, Word.RUNNING, Word.STALE):
            text = f"LOST: the machine is {WORDS[Phase.GONE]}; {rental.reason}"
            return replace(state, word=Word.LOST, text=text, next="its copied checkpoints can be restored")
        if rental.phase is Phase.GONE and state.word in RESUMABLE:
            return replace(state, next="its machine was given back: s starts a new run; its copies are on screen 4")
        return state

    def _state(self, run_id: str, target: str, path: str, run: Run | None, launched: Attempt | None,
               intent: Intent | None, ask: bool) -> RunState:
        now = time.time()
        number = max(launched.attempt if launched else 0, run.attempt if run else 0)
        pending = intent is not None and intent.outcome is None
        ended = run is not None and run.reported in _ENDED and run.attempt >= number
        found, sign, silent = job.JobState("unknown"), run.last_event if run else None, ""
        if ask and not ended:
            found, sign, silent = self._asked(run_id, target, path, run, number, pending, now)
            if found.state == "absent" and launched is None:
                found = job.JobState("unknown")  # started by hand, or never
        unlaunched = intent is not None and intent.attempt > number and not pending
        word, code = runstate.derive(runstate.Facts(
            pending=pending, never_launched=intent.outcome if intent and unlaunched else None, job=found.state,
            exit_code=found.code if found.signal is None else -found.signal, stopping=found.stopping,
            reported=run.reported if run and run.attempt >= number else None,
            reported_exit=run.exit_code if run else None, last_sign=sign, now=now, silent=bool(silent),
            paused=self._paused(run) is not None))
        number = max(number, found.attempt or 0, intent.attempt if intent else 0, 1)
        stage = run.last_stage if run else None
        reason = silent if word is Word.STALE else self._reason(run_id, run, word, intent)
        followed = run is not None and run.attached is not None
        if run is not None and followed and word is Word.SILENT and 0 < run.stages_total == run.stages_done:
            word = Word.RUNNING  # its log has said its last words: nothing more is to be expected
        text, hint = runstate.explain_followed(word, sign, reason, now) if followed else \
            runstate.explain(word, code, stage, sign, reason, number, now)
        if found.stopping and word in runstate.ALIVE:
            text += "; it was asked to stop"
        return RunState(run_id, word, number, code, stage, sign, text, hint)

    def _asked(self, run_id: str, target: str, path: str, run: Run | None, number: int, pending: bool,
               now: float) -> tuple[job.JobState, float | None, str]:
        """What the box says: its job, the newest sign of life, and why it says nothing ('' when it answers)."""
        sign = _last_sign(folder_of(self._home, run_id, target, path), run)
        moving, unknown = sign is not None and now - sign < _MOVING_S, job.JobState("unknown")
        if pending:
            return unknown, sign, ""
        try:
            with self._hosts.contact(target) as host:
                return self._job(run_id, host, path, number, moving), sign, ""
        except HostUnreachable as error:
            return unknown, sign, str(self._hosts.silence(target) or error)
        except NotFound:  # the machine was given back or forgotten
            return unknown, sign, ""

    def _job(self, run_id: str, host: Host, path: str, attempt: int, moving: bool) -> job.JobState:
        """What the box says of the job. Asking starts a process there, so an answer is kept: for good when the attempt
        has ended, for long while fresh events or log lines show that the run is alive, else for a moment."""
        held = self._seen.get(run_id)
        if held is not None:
            age, found = time.monotonic() - held[0], held[1]
            over = found.state in ("exited", "lost") and (found.attempt or 0) >= attempt
            if over or age < (_HOLD_WHILE_MOVING_S if moving and found.state == "running" else _HOLD_S):
                return found
        found = job.state(host, job_dir(path))
        self._seen[run_id] = (time.monotonic(), found)
        return found

    def _reason(self, run_id: str, run: Run | None, word: Word, intent: Intent | None) -> str | None:
        """Why it failed: in the stage's own words, else the supervisor's, else the launcher's. Why it is silent."""
        if word is Word.SILENT:
            return self._paused(run)
        if word is not Word.FAILED:
            return None
        if intent and intent.outcome and intent.outcome.startswith(FAILED):
            return f"it could not be launched: {intent.outcome[len(FAILED):]}"
        alerts = [a for a in self._queries.alerts(run_id, limit=20)
                  if a.data.get("level") == "error" and run is not None and a.attempt == run.attempt]
        return str(alerts[-1].data.get("text", "")) if alerts else (run.reason if run else None)


    def _paused(self, run: Run | None) -> str | None:
        """What the supervisor said of a stage that was stopped by a signal and has not gone on since."""
        if run is None or run.reported in _ENDED:
            return None
        told = [a for a in self._queries.alerts(run.id, limit=20)
                if a.attempt == run.attempt and a.data.get("code") in (PAUSED, CONTINUED)]
        paused = bool(told) and told[-1].data["code"] == PAUSED and told[-1].stage == run.last_stage
        return f"{told[-1].data.get('text', '')}; {told[-1].data.get('next', '')}" if paused else None


def _last_sign(folder: RunDir, run: Run | None) -> float | None:
    """The newest of: event known, event file changed, log changed; of a far run, when that reached this machine."""
    signs = [run.last_event] if run else []
    files = [folder.events] + ([folder.stage_log(run.last_stage)] if run and run.last_stage else [])
    for file in files:
        with suppress(FileNotFoundError):
            signs.append(file.stat().st_mtime)
    return max((sign for sign in signs if sign), default=None)


def log_tail(folder: RunDir, stage: str | None, attempt: int) -> tuple[str, ...]:
    """The last lines of a stage's log, or of the supervisor's own output where no stage has written."""
    for file in ([folder.stage_log(stage)] if stage else []) + [Path(job_log(str(folder.path), attempt))]:
        with suppress(FileNotFoundError), open(file, "rb") as f:
            f.seek(max(0, f.seek(0, 2) - _TAIL_BYTES))
            if lines := f.read().decode("utf-8", "replace").splitlines():
                return tuple(lines[-TAIL_LINES:])
    return ()


def job_dir(path: str) -> str:
    """Where the job of the run in this folder keeps its identity, lock and exit record."""
    return str(RunDir(Path(path)).job)


def job_log(path: str, attempt: int) -> str:
    """What the supervisor itself printed in one attempt, outside of any stage."""
    return f"{job_dir(path)}/output.{attempt}.log"

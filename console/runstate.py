"""The word for how a run is, derived each time from what is true: intent, job on the box, events, age of the last sign.

Pure: `derive` is given the facts and touches nothing. No word is stored anywhere, so none can go stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from console.ledger import CANCELLED
from engine.context import EXIT_STOPPED

SILENT_AFTER_S = 600.0


class Word(str, Enum):
    """The nine words, the same on screen, in `--json` and in the exit codes."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SILENT = "silent"
    STALE = "stale"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    def __str__(self) -> str:
        return self.value


ALIVE = frozenset({Word.QUEUED, Word.STARTING, Word.RUNNING, Word.SILENT, Word.STALE})
RESUMABLE = frozenset({Word.FAILED, Word.STOPPED, Word.LOST})
TROUBLE = frozenset({Word.SILENT, Word.STALE, Word.FAILED, Word.LOST})


@dataclass(frozen=True)
class Facts:
    """What is known of one run at one moment."""

    pending: bool  # an intent to start or resume it is written but not carried out yet
    job: str  # absent | running | exited | lost, or unknown: nobody was asked, or no console launched it
    exit_code: int | None  # of the job, when it exited; negative: the signal that ended it
    stopping: bool  # the job was asked to stop
    never_launched: str | None  # the outcome of a decision to start or resume that led to no launch
    reported: str | None  # the last run event of this attempt: started | finished | failed | stopped
    reported_exit: int | None
    last_sign: float | None  # newest event or log line, seconds since the epoch
    now: float
    silent: bool = False  # its machine was asked and did not answer
    paused: bool = False  # its stage was stopped by a signal and not continued since


@dataclass(frozen=True)
class RunState:
    """A run's state in words. `log_tail` is foreign text as it came; so are titles inside `text`."""

    run: str
    word: Word
    attempt: int
    exit_code: int | None
    stage: str | None  # the stage id that runs, failed or ran last
    last_sign: float | None
    text: str  # what happened, in one sentence
    next: str  # what to press or type; '' when nothing is to be done
    log_tail: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        return self.word in ALIVE


def derive(facts: Facts) -> tuple[Word, int | None]:
    """The word and, where there is one, the exit code behind it."""
    if facts.pending:
        return Word.QUEUED, None
    if facts.never_launched is not None:
        return (Word.STOPPED if facts.never_launched == CANCELLED else Word.FAILED), None
    if facts.silent:
        return Word.STALE, None
    if facts.job == "exited":
        return _ended(facts.exit_code, facts.stopping)
    if facts.job == "running":
        return _alive(facts), None
    if facts.job == "unknown" and facts.reported in ("finished", "failed", "stopped"):
        return Word(facts.reported), facts.reported_exit
    if facts.job == "unknown" and facts.last_sign and facts.now - facts.last_sign < SILENT_AFTER_S:
        return Word.RUNNING, None
    return Word.LOST, None


def _ended(code: int | None, stopping: bool) -> tuple[Word, int | None]:
    if code == 0:
        return Word.FINISHED, 0
    killed_on_request = stopping and code is not None and code < 0
    return (Word.STOPPED if code == EXIT_STOPPED or killed_on_request else Word.FAILED), code


def _alive(facts: Facts) -> Word:
    if facts.paused or (facts.last_sign is not None and facts.now - facts.last_sign > SILENT_AFTER_S):
        return Word.SILENT
    return Word.RUNNING if facts.reported is not None else Word.STARTING


def explain(word: Word, exit_code: int | None, stage: str | None, last_sign: float | None, reason: str | None,
            attempt: int, now: float) -> tuple[str, str]:
    """One sentence on what happened, and what to do next."""
    where = f" in {stage}" if stage else ""
    ago = f"{_ago(now - last_sign)} ago" if last_sign else "never"
    because = f": {reason}" if reason else ""
    again = "s resumes from the newest complete checkpoint (llmconsole run resume)"
    return {
        Word.QUEUED: ("The start is decided and written down; the job is not launched yet", ""),
        Word.STARTING: ("The job is launched; its first event is awaited", ""),
        Word.RUNNING: (f"Running{where}; last sign of life {ago}", ""),
        Word.SILENT: (f"SILENT{because}" if reason else
                      f"SILENT{where}: the process is alive but wrote nothing since {ago}",
                      "look at the log; x stops it (llmconsole run stop)"),
        Word.STALE: (f"STALE: the machine does not answer, so the work is assumed to go on; last seen{where} {ago}"
                     + because, "nothing is lost: the rest is read when it answers again"),
        Word.FINISHED: ("Finished; every stage is done", "press 5 to chat (llmconsole chat)"),
        Word.FAILED: (f"FAILED{describe_exit(exit_code)}{where}{because}", again),
        Word.STOPPED: (f"Stopped on request{where}; what was done is saved", again),
        Word.LOST: (f"LOST{where}: attempt {attempt} vanished without an exit record (killed, or the machine "
                    f"restarted); last sign of life {ago}", again),
    }[word]


def explain_followed(word: Word, last_sign: float | None, reason: str | None, now: float) -> tuple[str, str]:
    """The same for a run that others started: its job here only follows, and nothing done here touches that run."""
    ago = f"{_ago(now - last_sign)} ago" if last_sign else "never"
    because = f": {reason}" if reason else ""
    again = "s follows on from there (llmconsole run resume)"
    return {
        Word.RUNNING: (f"Following; its log's newest line came {ago}", ""),
        Word.SILENT: (f"SILENT: its log has not grown since {ago}; it has ended, hangs, or prints elsewhere",
                      "x ends the following (llmconsole run stop)"),
        Word.STOPPED: ("Stopped: it is not followed any more; the run itself was not touched", again),
        Word.FAILED: (f"FAILED to follow{because}", again),
        Word.LOST: (f"LOST: the following ended without a word; last sign of life {ago}; the run itself was not "
                    "touched", again),
    }.get(word, ("Following begins", ""))


def describe_exit(code: int | None) -> str:
    if code is None:
        return ""
    return f" by signal {-code}" if code < 0 else f" exit {code}"


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""A command that outlives whoever started it: launched exactly once per attempt, asked for, stopped, on any Host.

The work is done beside the command by `remote.job_runner`; this is the asking side. A reply means that what it says is
on that machine's disk. Nothing is stored here, and nothing is known of what the command does.

States: absent (never started), running, exited (with a code, or by a signal), lost (started, gone, and nobody knows
how). A lost attempt is never started again; the next attempt has the next number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.errors import OtherAttemptExists, RunnerFailed
from remote.host import Completed, Host

RUNNER = Path(__file__).with_name("job_runner.py")
AFTER_KILL = 10.0   # seconds that the machine gets to end a command it was told to kill
_LAUNCH_TRIES = 3
_POLL = 0.2         # seconds between two looks while waiting for an end


@dataclass(frozen=True)
class JobState:
    """What became of the newest attempt. Times are that machine's wall time in seconds; `pid` is the keeper's."""

    state: str
    attempt: int | None = None
    pid: int | None = None
    code: int | None = None
    signal: int | None = None
    started: float | None = None
    ended: float | None = None
    stopping: bool = False


def launch(host: Host, job_dir: str, attempt: int, argv: Sequence[str], env: Mapping[str, str] | None = None,
           cwd: str | None = None) -> JobState:
    """Start `argv` detached as this attempt, unless it was started before; safe to repeat after any failure.

    What it prints goes to `output.<attempt>.log` in the folder; `cwd` defaults to the folder. `env` is added to the
    machine's environment and is not written down. Raises OtherAttemptExists, RunnerFailed, and what the host raises.
    """
    request = json.dumps({"argv": list(argv), "env": dict(env or {}), "cwd": cwd}).encode()
    found = _launched(host, ["launch", job_dir, str(attempt)], request)
    if found.state == "absent":
        raise RunnerFailed(f"attempt {attempt} could not be started; {job_dir}/output.{attempt}.log may say why")
    if found.attempt != attempt:
        raise OtherAttemptExists(f"attempt {found.attempt} is {found.state} in {job_dir}", found.attempt or 0)
    return found


def state(host: Host, job_dir: str) -> JobState:
    """What became of the newest attempt in this folder."""
    return _ask(host, ["state", job_dir])


def request_stop(host: Host, job_dir: str, grace_s: float) -> JobState:
    """Ask the running attempt to end and return at once: SIGTERM now, SIGKILL after `grace_s`; 0 kills at once.

    The machine itself keeps the time, so it happens whether or not anyone is still connected. Silent when nothing runs.
    """
    return _ask(host, ["stop", job_dir, f"{grace_s:g}"])


def stop(host: Host, job_dir: str, grace_s: float) -> JobState:
    """`request_stop`, then wait for the end; the state is "running" only if even SIGKILL did not help in time."""
    found = request_stop(host, job_dir, grace_s)
    deadline = time.monotonic() + grace_s + AFTER_KILL
    while found.state == "running" and time.monotonic() < deadline:
        time.sleep(_POLL)
        found = state(host, job_dir)
    return found


def _launched(host: Host, words: Sequence[str], request: bytes) -> JobState:
    """Ask again where the launcher itself was killed: what it had begun is found, what it had not is begun now."""
    for _ in range(_LAUNCH_TRIES - 1):
        with suppress(RunnerFailed):
            found = _ask(host, words, request)
            if found.state != "absent":
                return found
    return _ask(host, words, request)


def _ask(host: Host, argv: Sequence[str], stdin: bytes = b"") -> JobState:
    done = host.run_script(RUNNER, argv, stdin=stdin)
    reply = _parse(done)
    return JobState(**{name: reply[name] for name in JobState.__dataclass_fields__ if name in reply})


def _parse(done: Completed) -> dict[str, Any]:
    try:
        reply = json.loads(done.out)
    except ValueError:
        reply = None
    if done.rc != 0 or not isinstance(reply, dict) or "state" not in reply:
        words = done.err.decode(errors="replace").strip().splitlines()
        raise RunnerFailed(f"exit code {done.rc}: {words[-1] if words else 'no reply'}")
    return reply

"""What the exit status of every verb means; scripts may rely on these numbers.

The table is printed by `llmconsole --help` and frozen by a test.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """One number per thing that a caller would do differently."""

    OK = 0
    WORK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    CREDENTIAL = 4
    REFUSED = 5
    NO_CAPACITY = 6
    VERIFICATION = 7
    NOT_FOUND = 8
    CONFLICT = 9
    UNHEALTHY = 10
    TIMEOUT = 124
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "done, or healthy",
    Exit.WORK_FAILED: "the work itself failed (a stage's exit, a NaN stop, doctor found a problem)",
    Exit.USAGE: "wrong usage or configuration; the message names the file and the key",
    Exit.UNREACHABLE: "the target cannot be reached",
    Exit.CREDENTIAL: "a credential is missing or was refused",
    Exit.REFUSED: "refused: by a budget, by missing disk space, or because the console is read-only",
    Exit.NO_CAPACITY: "the provider has no capacity",
    Exit.VERIFICATION: "a verification failed (hash, size, restore)",
    Exit.NOT_FOUND: "no such run, stage, model or recipe",
    Exit.CONFLICT: "conflict: another owner, or already running",
    Exit.UNHEALTHY: "`status --check`: a run is silent, failed or lost",
    Exit.TIMEOUT: "the time given by --timeout passed; work keeps running",
    Exit.INTERRUPTED: "interrupted; work keeps running",
}

"""The console's own errors, a small tree named for what the caller does next.

    ConsoleError        one sentence with cause and consequence, and what to do next
        UsageProblem    a person wrote something that cannot be used (exit 2)
        Refused         the rules say no: read-only console, too little disk (exit 5)
        NotFound        the named run, recipe or model is not there (exit 8)
        Conflict        somebody else owns it, or it is already running (exit 9)
"""

from __future__ import annotations

from console.exit_codes import Exit


class ConsoleError(Exception):
    """Shown to a person as it is, without a traceback; `next` says what to press or type."""

    exit = Exit.WORK_FAILED

    def __init__(self, text: str, next: str = "") -> None:
        super().__init__(text)
        self.next = next


class UsageProblem(ConsoleError):
    exit = Exit.USAGE


class Refused(ConsoleError):
    exit = Exit.REFUSED


class NotFound(ConsoleError):
    exit = Exit.NOT_FOUND


class Conflict(ConsoleError):
    exit = Exit.CONFLICT

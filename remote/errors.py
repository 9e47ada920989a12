"""What can go wrong on another machine, named for what the caller does next.

    RemoteError
    |-- HostUnreachable      wait and try again: nothing is known about what happened there
    |-- CommandTimeout       ask for the state before repeating: the command may still be at work there
    |-- NoSuchFile           take the absence as the answer, or wait for the file to appear
    |-- FileReplaced         start again from offset 0: the file is a different one now
    |-- RunnerFailed         show it to a person: the box answered, but not with what was asked
    `-- OtherAttemptExists   attach to the attempt it names instead of launching
"""

from __future__ import annotations


class RemoteError(Exception):
    """Something on another machine, or on the way to it, did not work."""


class HostUnreachable(RemoteError):
    """No answer from the machine; what was asked may or may not have happened."""


class CommandTimeout(RemoteError):
    """The command did not end in the time that the caller gave it."""


class NoSuchFile(RemoteError):
    """The path does not exist there."""


class FileReplaced(RemoteError):
    """The file that is being followed was cut or replaced by another one."""


class RunnerFailed(RemoteError):
    """Our own script on the machine ended without a usable reply; the message carries its last words."""


class OtherAttemptExists(RemoteError):
    """The job folder already holds a living or a later attempt, so this one was not started."""

    def __init__(self, text: str, attempt: int) -> None:
        super().__init__(text)
        self.attempt = attempt

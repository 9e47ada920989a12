"""The one door to a machine: run a command, read and write files, follow a file that grows.

The same promises hold for this machine (`remote.local`) and for any other; whoever drives a run knows only this
Protocol. It knows nothing of stages, runs or money. Paths are POSIX strings in the machine's own file system.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit code (negative: the signal that ended it) and everything it wrote."""

    rc: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class FileStat:
    """What tells one file from its successor. `mtime` is wall time in seconds on that machine."""

    size: int
    inode: int
    mtime: float


class Host(Protocol):
    """A machine. Every method raises HostUnreachable when the machine cannot be asked."""

    name: str
    python: tuple[str, ...]
    """The words that start Python there, e.g. ("/usr/bin/python3",); our packages import in it."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None,
            cwd: str | None = None, timeout: float = 60.0) -> Completed:
        """Run a command to its end; a non-zero exit code is an answer, not an exception.

        `env` is added to the machine's own environment and is never visible in a process list.
        Raises CommandTimeout after `timeout` seconds, having tried to end the command.
        """

    def run_script(self, script: Path, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run one of our self-contained Python files there, sent along if the machine does not have it yet."""

    def read(self, path: str, offset: int = 0, limit: int | None = None) -> bytes:
        """Bytes of a file from `offset`, at most `limit`; b"" at or past its end. Raises NoSuchFile."""

    def stat(self, path: str) -> FileStat | None:
        """Size and identity of a file, or None when there is none."""

    def listdir(self, path: str) -> list[str]:
        """The names in a folder, sorted. Raises NoSuchFile."""

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there, its folders made as needed; it appears whole or not at all."""

    def get(self, remote: str, local: Path) -> None:
        """Copy a file here; it appears whole or not at all. Raises NoSuchFile."""

    def follow(self, path: str, offset: int, stop: threading.Event) -> Iterator[bytes]:
        """What is appended to a file from `offset` on, until `stop` is set; waits for a file that is not there yet.

        Each piece ends at a line end, so offset + len(piece) is always a safe place to go on from; only a line longer
        than 1 MiB arrives in parts. Raises FileReplaced when the file gets shorter or becomes another one.
        """

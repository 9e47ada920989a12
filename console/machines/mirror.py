"""Copies of a far run's events, logs and report on this machine, the first two appended as they grow over there.

Everything that shows a run reads these, so a screen never waits for a link, clocks of two machines are never compared,
and what a rented machine said is still here when the machine is gone. Laid out as a run folder (`engine.rundir`).
Copying may be cut anywhere: a copy is always a prefix of the original, and the next pull goes on from its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from console.machines.targets import LOCAL
from console.paths import Home
from engine.rundir import RunDir, write_atomic
from remote.errors import FileReplaced, NoSuchFile

if TYPE_CHECKING:
    from remote.host import Host

_PIECE = 4 << 20
_ORIGINS = ".origins.json"
_REPORT, _LARGEST_PAGE = "base/report", 4 << 20


def folder_of(home: Home, run_id: str, target: str, path: str) -> RunDir:
    """Where to read about a run on this machine: its own folder, or the copy of a far one."""
    return RunDir(Path(path) if target == LOCAL else home.mirror / run_id)


class Mirror:
    """The copy of one run folder. One thread at a time."""

    def __init__(self, home: Home, run_id: str, host: Host, path: str) -> None:
        self.folder, self._host, self._path = RunDir(home.mirror / run_id), host, path

    def pull(self, stage: str | None = None) -> None:
        """Bring the events, and the log of the stage that runs, up to date. Raises RemoteError."""
        self._pull("events.jsonl")
        if stage is not None:
            self._pull(f"logs/{stage}.log")

    def pull_all(self) -> None:
        """Bring everything that is copied up to date. Raises RemoteError."""
        self._pull("events.jsonl")
        for folder, prefix in (("logs", ""), ("job", "output.")):
            for name in self._names(folder):
                if name.endswith(".log") and name.startswith(prefix) and "/" not in name:
                    self._pull(f"{folder}/{name}")
        for name in self._names(_REPORT):
            if name.endswith((".md", ".json")) and "/" not in name:
                self._replace(f"{_REPORT}/{name}")

    def _names(self, folder: str) -> list[str]:
        try:
            return self._host.listdir(f"{self._path}/{folder}")
        except NoSuchFile:
            return []

    def _pull(self, name: str) -> None:
        source, copy = f"{self._path}/{name}", self.folder.path / name
        found = self._host.stat(source)
        if found is None:
            return
        have = copy.stat().st_size if copy.exists() else 0
        if have > found.size or (have and self._origin(name) not in (None, found.inode)):
            copy.unlink()  # over there it is another file now
            have = 0
        if not have:
            copy.parent.mkdir(parents=True, exist_ok=True)
            self._remember(name, found.inode)
        try:
            self._append(source, copy, have, found.size)
        except (NoSuchFile, FileReplaced):  # it went away since; the next pull sees what is there then
            return

    def _replace(self, name: str) -> None:
        """A small file that is written anew each time, not appended to."""
        found = self._host.stat(f"{self._path}/{name}")
        if found is None or found.size > _LARGEST_PAGE or self._origin(name) == int(found.mtime * 1000):
            return
        try:
            data = self._host.read(f"{self._path}/{name}", 0, _LARGEST_PAGE)
        except NoSuchFile:
            return
        (self.folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder.path / name, data)
        self._remember(name, int(found.mtime * 1000))

    def _append(self, source: str, copy: Path, have: int, size: int) -> None:
        with open(copy, "ab") as f:
            while have < size:
                piece = self._host.read(source, have, min(_PIECE, size - have))
                if not piece:
                    return
                f.write(piece)
                f.flush()
                have += len(piece)

    def _origin(self, name: str) -> int | None:
        return self._origins().get(name)

    def _origins(self) -> dict[str, int]:
        try:
            return dict(json.loads((self.folder.path / _ORIGINS).read_bytes()))
        except (FileNotFoundError, ValueError):
            return {}

    def _remember(self, name: str, origin: int) -> None:
        """`origin`: the inode of what is appended to, the time in ms of what is replaced."""
        known = self._origins()
        if known.get(name) != origin:
            write_atomic(self.folder.path / _ORIGINS, json.dumps({**known, name: origin}).encode())


"""Where a restore can read from: a copy in a folder here or behind SSH, any pinned commit of a repository.

A source lists its files and gives ranges of bytes; it never says whether they are right. A branch is resolved to its
commit once, when the source is opened, so that nothing changes half way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx

from remote.backup import manifest as backup_manifest
from remote.backup.fetching import NoRanges, RangeBroken
from remote.backup.hub_http import TryAgain
from remote.backup.hub_wire import HubWire, Listed
from remote.errors import HostUnreachable, HubUnreachable, NoSuchCopy, NoSuchFile
from remote.host import Host

_PIECE = 1 << 20


class Source(Protocol):
    """One place with files below it."""

    name: str
    streams: int
    """How many ranges are worth asking for at once."""

    def files(self) -> list[Listed]:
        """Every file by its path below the place. Raises NoSuchCopy."""

    def small(self, path: str) -> bytes:
        """A whole small file. Raises NoSuchCopy."""

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        """As `fetching.OpenRange`."""


class FolderSource:
    """A folder of this machine."""

    streams = 1

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def files(self) -> list[Listed]:
        if not self.folder.is_dir():
            raise NoSuchCopy(f"there is no folder {self.folder}")
        found = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        return [Listed(path.relative_to(self.folder).as_posix(), path.stat().st_size, None) for path in found]

    def small(self, path: str) -> bytes:
        try:
            with open(self.folder / path, "rb") as f:
                return f.read(backup_manifest.MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NoSuchCopy(f"there is no {path} in {self.folder}") from None

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        try:
            with open(self.folder / path, "rb") as f:
                f.seek(begin)
                while begin < end:
                    chunk = f.read(min(_PIECE, end - begin))
                    if not chunk:
                        raise HubUnreachable(f"{path} in {self.folder} is shorter than it should be")
                    begin += len(chunk)
                    yield chunk
        except FileNotFoundError:
            raise NoSuchCopy(f"there is no {path} in {self.folder}") from None


class HubSource:
    """Everything below `place` at one commit of a repository."""

    streams = 8

    def __init__(self, wire: HubWire, place: str = "", revision: str | None = None) -> None:
        self.wire, self.place = wire, place.strip("/")
        self.commit = str(wire.info(revision)["sha"])
        self.name = f"{wire.repo}@{self.commit[:12]}" + (f"/{self.place}" if self.place else "")
        self._urls: dict[str, str] = {}
        self._guard = threading.Lock()

    def files(self) -> list[Listed]:
        before = f"{self.place}/" if self.place else ""
        listed = self.wire.tree(self.commit, self.place)
        if not listed:
            raise NoSuchCopy(f"there is nothing at {self.name}")
        return [Listed(entry.path.removeprefix(before), entry.size, entry.sha256, entry.git_sha1) for entry in listed]

    def small(self, path: str) -> bytes:
        return self.wire.small_file(self.commit, self._full(path))

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        got = begin
        try:
            with self.wire.stream(self._url(path), begin, end) as reply:
                if reply.status_code == 200 and begin > 0:
                    raise NoRanges
                for chunk in reply.iter_raw(_PIECE):
                    chunk = chunk[:end - got]
                    got += len(chunk)
                    yield chunk
                    if got == end and reply.status_code == 200:
                        return  # more than was asked for may follow
            if got == end:
                return
        except (httpx.TransportError, TryAgain) as error:
            self._forget(path)
            raise RangeBroken(str(error) or "the connection was cut") from error
        except HubUnreachable as error:  # a signed URL that is too old is refused: a new one may be had
            self._forget(path)
            raise RangeBroken(str(error)) from error
        self._forget(path)
        raise RangeBroken("the connection ended early")

    def _url(self, path: str) -> str:
        with self._guard:
            if path not in self._urls:
                self._urls[path] = self.wire.file_url(self.commit, self._full(path))
            return self._urls[path]

    def _forget(self, path: str) -> None:
        with self._guard:
            self._urls.pop(path, None)

    def _full(self, path: str) -> str:
        return f"{self.place}/{path}" if self.place else path


class HostSource:
    """One copy of ours in a folder of another machine; what is in it is told by its manifest."""

    streams = 1

    def __init__(self, host: Host, folder: str) -> None:
        self._host, self._folder, self.name = host, folder, f"{host.name}:{folder}"

    def files(self) -> list[Listed]:
        manifest = backup_manifest.load(self.small(backup_manifest.MANIFEST))
        return [Listed(name, file.bytes, file.sha256) for name, file in manifest.files.items()]

    def small(self, path: str) -> bytes:
        try:
            return self._host.read(f"{self._folder}/{path}", 0, backup_manifest.MAX_BYTES + 1)
        except NoSuchFile:
            raise NoSuchCopy(f"there is no {path} in {self.name}") from None

    def open_range(self, path: str, begin: int, end: int) -> Iterator[bytes]:
        while begin < end:
            try:
                chunk = self._host.read(f"{self._folder}/{path}", begin, min(8 * _PIECE, end - begin))
            except NoSuchFile:
                raise NoSuchCopy(f"there is no {path} in {self.name}") from None
            except HostUnreachable as error:
                raise RangeBroken(str(error)) from error
            if not chunk:
                raise HubUnreachable(f"{path} in {self.name} is shorter than it should be")
            begin += len(chunk)
            yield chunk

"""This machine as a Host, so that the way to a local run and to a far one is the same code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from remote.errors import CommandTimeout, FileReplaced, NoSuchFile
from remote.host import Completed, FileStat
from remote.secret_text import child_environment

_PIECE = 1 << 20  # bytes read at once while following, and the longest line that is waited for


class LocalHost:
    """The Host Protocol on this machine. `poll` is how often, in seconds, a followed file is looked at."""

    def __init__(self, poll: float = 0.2) -> None:
        self.name = "local"
        self.python: tuple[str, ...] = (sys.executable,)
        self._poll = poll

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None,
            cwd: str | None = None, timeout: float = 60.0) -> Completed:
        process = subprocess.Popen(list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=child_environment(env), cwd=cwd, start_new_session=True)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):  # its children too, or they would hold the pipes open
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise CommandTimeout(f"{argv[0]} did not end within {timeout:g} s") from None
        return Completed(process.returncode, out, err)

    def run_script(self, script: Path, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        # -I -S: no site packages, no user settings; a self-contained script starts three times as fast
        return self.run([*self.python, "-I", "-S", str(script), *argv], stdin=stdin, timeout=timeout)

    def read(self, path: str, offset: int = 0, limit: int | None = None) -> bytes:
        try:
            with open(path, "rb") as f:
                f.seek(offset)
                return f.read(-1 if limit is None else limit)
        except FileNotFoundError:
            raise NoSuchFile(path) from None

    def stat(self, path: str) -> FileStat | None:
        try:
            found = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStat(found.st_size, found.st_ino, found.st_mtime)

    def listdir(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in Path(path).iterdir())
        except FileNotFoundError:
            raise NoSuchFile(path) from None

    def put(self, local: Path, remote: str) -> None:
        _copy(local, Path(remote))

    def get(self, remote: str, local: Path) -> None:
        _copy(Path(remote), local)

    def follow(self, path: str, offset: int, stop: threading.Event) -> Iterator[bytes]:
        inode: int | None = None
        while not stop.is_set():
            found = self.stat(path)
            if found is not None:
                if found.size < offset or inode not in (None, found.inode):
                    raise FileReplaced(path)
                inode = found.inode
                piece = _whole_lines(self.read(path, offset, _PIECE)) if found.size > offset else b""
                if piece:
                    offset += len(piece)
                    yield piece
                    continue
            stop.wait(self._poll)


def _whole_lines(data: bytes) -> bytes:
    """`data` up to its last line end; all of it when it is full and has none."""
    end = data.rfind(b"\n") + 1
    return data if end == 0 and len(data) == _PIECE else data[:end]


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NoSuchFile(str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

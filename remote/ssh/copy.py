"""Copies to and from another machine: whole or not at all, compared by sha256, downloads resumable.

A download is one byte stream in a wide window, not many small requests: that is what makes it fast over a slow link.
What has arrived waits in a hidden `.part` file named after the very file it comes from.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote.errors import CopyDamaged, FileReplaced, HostUnreachable
from remote.ssh.files import head_line
from remote.ssh.link import keep_trying
from remote.ssh.session import Session

_PIECE = 1 << 20
Order = Callable[[Mapping[str, Any], "threading.Event | None"], Session]
Progress = Callable[[int, int], None]


def put(order: Order, name: str, local: Path, remote: str, stop: threading.Event | None,
        progress: Progress | None) -> None:
    """Raises OSError with the other side's reason, such as a full disk, and CopyDamaged."""
    with open(local, "rb") as f:
        found = os.fstat(f.fileno())
        session = order({"mode": "put", "path": remote, "size": found.st_size,
                         "mode_bits": found.st_mode & 0o777}, stop)
        try:
            with suppress(BrokenPipeError):  # it takes no more: its answer says why
                _send(session, f, found.st_size, progress)
            if not head_line(session, remote)["same"]:
                raise CopyDamaged(f"{remote} on {name} did not arrive as {local} was sent")
        finally:
            session.close()


def _send(session: Session, f: Any, size: int, progress: Progress | None) -> None:
    digest, left = hashlib.sha256(), size
    while left:
        data = f.read(min(_PIECE, left))
        if not data:
            break  # it got shorter while we sent it: the hash will not fit
        digest.update(data)
        session.send(data)
        left -= len(data)
        if progress is not None:
            progress(size - left, size)
    session.send(digest.hexdigest().encode())
    session.end_input()


def get(order: Order, name: str, remote: str, local: Path, stop: threading.Event, progress: Progress | None,
        patience: float) -> None:
    """Raises NoSuchFile, CopyDamaged, FileReplaced; HostUnreachable when `patience` s passed without a byte."""
    local.parent.mkdir(parents=True, exist_ok=True)
    tries, silent_since = 0, time.monotonic()
    while True:
        part = _part(local)
        before = part.stat().st_size if part else 0
        try:
            _fetch(order, name, remote, local, part, stop, progress)
            return
        except HostUnreachable as error:
            part = _part(local)
            if part and part.stat().st_size > before:
                tries, silent_since = 0, time.monotonic()
            if time.monotonic() - silent_since > patience:
                raise
            keep_trying(error, tries, stop)
            tries += 1


def _fetch(order: Order, name: str, remote: str, local: Path, part: Path | None, stop: threading.Event,
           progress: Progress | None) -> None:
    have, stamp = (part.stat().st_size, part.name.split(".")[-2]) if part else (0, "")
    session = order({"mode": "get", "path": remote, "offset": have, "stamp": stamp}, stop)
    try:
        told = head_line(session, remote)
        if part and not told["offset"]:
            part.unlink()  # of another file than the one that is there now
        into = local.with_name(f".{local.name}.{told['stamp']}.part")
        try:
            digest = _write(session, into, told["offset"], told["size"], progress)
        except OSError:
            into.unlink(missing_ok=True)  # a full disk: what lies there helps nobody
            raise
        _compare(session, digest, into, remote, name)
        os.replace(into, local)
    finally:
        session.close()


def _write(session: Session, into: Path, offset: int, size: int, progress: Progress | None) -> str:
    with open(into, "r+b" if into.exists() else "w+b") as f:
        digest = _receive(session, f, offset, size, progress)
        f.flush()
        os.fsync(f.fileno())
    return digest


def _receive(session: Session, f: Any, offset: int, size: int, progress: Progress | None) -> str:
    """The sha256 of the whole file, of which `offset` bytes were here before."""
    digest = hashlib.sha256()
    left = offset
    while left and (data := f.read(min(_PIECE, left))):
        digest.update(data)
        left -= len(data)
    done = offset
    while done < size:
        data = session.recv(min(_PIECE, size - done))
        if not data:
            raise FileReplaced(f"a file on {session.name} got shorter while it was copied")
        f.write(data)
        digest.update(data)
        done += len(data)
        if progress is not None:
            progress(done, size)
    return digest.hexdigest()


def _compare(session: Session, digest: str, part: Path, remote: str, name: str) -> None:
    sent = session.exactly(64).decode(errors="replace")
    if not sent:
        raise FileReplaced(f"{remote} on {name} got shorter while it was copied")
    if sent != digest:
        part.unlink()
        raise CopyDamaged(f"{remote} of {name} did not arrive as it was sent; what arrived was thrown away")


def _part(local: Path) -> Path | None:
    """What an earlier copy to this place left behind; the newest when there are several, the others go."""
    found = sorted(local.parent.glob(f".{_escaped(local.name)}.*.part"), key=lambda path: path.stat().st_mtime)
    for path in found[:-1]:
        path.unlink(missing_ok=True)
    return found[-1] if found else None


def _escaped(name: str) -> str:
    """The name for a glob pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)

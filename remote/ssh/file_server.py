"""The box's side of looking at files and copying them, for machines that have nothing but Python 3.9 and a shell.

A self-contained file that is sent over a connection's stdin and run there; the first line after it is the order:

    {"mode": "serve"}                                    then one request per line, answered in order
    {"mode": "follow", "path", "offset", "inode", "poll"}
    {"mode": "get", "path", "offset"}
    {"mode": "put", "path", "size"}                      then the bytes, then their sha256 in hex

It ends when its stdin does. It leaves nothing behind: a copy is a temporary file until its hash was compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 20  # bytes read at once, and the longest line that a follower waits for


def main(source: BinaryIO, sink: BinaryIO) -> None:
    order = json.loads(source.readline())
    try:
        {"serve": serve, "follow": follow, "get": get, "put": put}[order["mode"]](order, source, sink)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the other end has gone, and a flush at exit would only complain


def head(sink: BinaryIO, **words: Any) -> None:
    sink.write(json.dumps(words).encode() + b"\n")
    sink.flush()


# Small questions, many of them, in one process.


def serve(order: dict[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
    for line in iter(source.readline, b""):
        asked = json.loads(line)
        data = b""
        try:
            data, words = ANSWERS[asked["op"]](asked)
        except FileNotFoundError:
            words = {"missing": True}
        except OSError as error:
            words = {"errno": error.errno or 0, "error": error.strerror or str(error)}
        sink.write(json.dumps({"id": asked["id"], "bytes": len(data), **words}).encode() + b"\n" + data)
        sink.flush()


def answer_read(asked: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    with open(asked["path"], "rb") as f:
        f.seek(asked["offset"])
        return f.read(asked["limit"]), {}


def answer_stat(asked: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    try:
        found = Path(asked["path"]).stat()
    except NotADirectoryError:
        raise FileNotFoundError(asked["path"]) from None
    return b"", {"size": found.st_size, "inode": found.st_ino, "mtime": found.st_mtime}


def answer_list(asked: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    return b"", {"names": sorted(entry.name for entry in Path(asked["path"]).iterdir())}


ANSWERS = {"read": answer_read, "stat": answer_stat, "list": answer_list}


# A file that grows: whole lines as they come, "I" its inode, "D" data, "R" when it was replaced.


def follow(order: dict[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
    path, offset, inode = order["path"], order["offset"], order["inode"]
    idle = False
    while not (idle and ended(source, order["poll"])):
        idle = True
        try:
            with open(path, "rb") as f:
                found = os.fstat(f.fileno())
                if found.st_size < offset or inode not in (None, found.st_ino):
                    frame(sink, b"R", b"")
                    return
                if inode is None:
                    inode = found.st_ino
                    frame(sink, b"I", b"%d" % inode)
                piece = piece_at(f, offset) if found.st_size > offset else b""
        except FileNotFoundError:
            continue
        if piece:
            frame(sink, b"D", piece)
            offset += len(piece)
            idle = False


def piece_at(f: BinaryIO, offset: int) -> bytes:
    """From `offset` up to a line end; all of it when it is full and has none."""
    f.seek(offset)
    data = f.read(PIECE)
    end = data.rfind(b"\n") + 1
    return data if end == 0 and len(data) == PIECE else data[:end]


def ended(source: BinaryIO, wait: float) -> bool:
    """Wait so long; whether whoever asked has gone."""
    return bool(select.select([source], [], [], wait)[0]) and not os.read(source.fileno(), 4096)


def frame(sink: BinaryIO, kind: bytes, data: bytes) -> None:
    sink.write(kind + b"%d\n" % len(data))
    sink.write(data)
    sink.flush()


# Copies, hashed on the way.


def get(order: dict[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
    """Head line, the bytes from `offset` on, then the sha256 of the whole file as it was read."""
    path = Path(order["path"])
    if not path.is_file():
        head(sink, missing=True)
        return
    try:
        with open(path, "rb") as f:
            found = os.fstat(f.fileno())
            stamp = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
            offset = order["offset"] if order["stamp"] == stamp else 0
            head(sink, size=found.st_size, offset=offset, stamp=stamp)
            send(f, offset, found.st_size, sink)
    except PermissionError as error:
        head(sink, errno=error.errno, error=error.strerror)


def send(f: BinaryIO, offset: int, size: int, sink: BinaryIO) -> None:
    """Hash all of it, write what comes after `offset`; a file that got shorter gets no hash."""
    digest, done = hashlib.sha256(), 0
    while done < size:
        data = f.read(min(PIECE, size - done if done >= offset else offset - done))
        if not data:
            return
        digest.update(data)
        if done >= offset:
            sink.write(data)
        done += len(data)
    sink.write(digest.hexdigest().encode())
    sink.flush()


def put(order: dict[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
    path = Path(order["path"])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = receive(source, temporary, order["size"], order["mode_bits"])
        if whole:
            os.replace(temporary, path)
            sync(path.parent)
        head(sink, same=whole)
    except OSError as error:
        head(sink, errno=error.errno or 0, error=error.strerror or str(error))
    finally:
        if temporary.exists():
            temporary.unlink()


def receive(source: BinaryIO, temporary: Path, size: int, mode: int) -> bool:
    """Write what comes; whether it is what was sent."""
    digest, left = hashlib.sha256(), size
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as f:
        while left:
            data = source.read(min(PIECE, left))
            if not data:
                return False  # the sender has gone
            f.write(data)
            digest.update(data)
            left -= len(data)
        if source.read(64) != digest.hexdigest().encode():
            return False
        f.flush()
        os.fsync(f.fileno())
    return True


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)

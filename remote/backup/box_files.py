"""The box's side of safekeeping: list checkpoints, hash and check their files, send them to and fetch them from URLs.

    python box_files.py inventory BASE
    python box_files.py examine FILE
    python box_files.py send   < {"path", "pieces": [{"url", "headers", "offset", "length"}], "timeout", "note"}
    python box_files.py fetch  < {"url", "headers", "timeout", "note"}

Each prints one JSON line. A self-contained file for any Python from 3.9 on with nothing installed; it is sent to
machines that have nothing else of ours. It gets signed URLs and never a token, opens no tensor, and knows nothing of
runs, hubs or receipts. Progress is appended to the file `note`, where there is one; `note`.stop there ends the work.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import re
import socket
import sys
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK = 4 << 20             # bytes read and sent at once
MAX_JSON = 1 << 20          # bytes of a meta or manifest file; real ones have some thousand
STAGES = ("base_checkpoints", "mid_checkpoints", "chatsft_checkpoints", "chatrl_checkpoints")

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
_FILE = re.compile(r"(?:model|optim)_([0-9]{6,9})(?:_rank[0-9]{1,4})?\.pt|(?:meta|manifest)_([0-9]{6,9})\.json")
_TOKENIZER_BYTES = 64 << 20
_NOTE_EVERY = 0.5           # seconds between two lines of progress
_ATTEMPTS = 3               # of connecting, before the caller is told

OnBytes = Callable[[int], None]


class Stopped(Exception):
    """The caller does not want it any more."""


def main(argv: list[str]) -> int:
    verb = argv[0]
    if verb == "inventory":
        reply = inventory(Path(argv[1]).expanduser())
    elif verb == "examine":
        reply = examine(Path(argv[1]))
    else:
        request = json.load(sys.stdin)
        try:
            reply = (send if verb == "send" else fetch)(request, _noting(request.get("note")))
        except Stopped:
            reply = {"ok": False, "status": 0, "reason": "stopped", "stopped": True}
        finally:
            if request.get("note"):
                Path(request["note"]).unlink(missing_ok=True)
                Path(request["note"] + ".stop").unlink(missing_ok=True)
    print(json.dumps(reply), flush=True)
    return 0


# What is there.


def inventory(base: Path) -> dict[str, Any]:
    """Every checkpoint folder of a nanochat base directory and of the runs below it, as names and stats alone.

    `exists` is about the folder around it: where that is there, a missing base directory means that nothing was made.
    """
    bases = [base, *(base / "runs" / name / "base" for name in _folders(base / "runs"))]
    folders, tokenizers = [], {}
    for place in bases:
        prefix = "" if place == base else place.relative_to(base).as_posix() + "/"
        found = [f"{stage}/{tag}" for stage in STAGES for tag in _folders(place / stage)]
        folders += [_folder(place / name, prefix + name) for name in found]
        if found:
            tokenizers[prefix] = _tokenizer(place / "tokenizer")
    return {"base": str(base.absolute()), "exists": base.parent.is_dir(), "now": time.time(), "folders": folders,
            "tokenizers": tokenizers}


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if re.fullmatch(_NAME, e.name) and e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folder(path: Path, name: str) -> dict[str, Any]:
    files, texts = {}, {}
    with os.scandir(path) as entries:
        for entry in entries:
            if _FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                files[entry.name] = stat_of(entry)
    for file in files:
        if file.endswith(".json"):
            texts[file] = _text(path / file)
    return {"folder": name, "files": files, "texts": texts}


def stat_of(entry: Any) -> list[int]:
    """[size, mtime, ctime, inode]; a file whose four numbers are unchanged was not written to. Times in ns."""
    found = entry.stat(follow_symlinks=False) if isinstance(entry, os.DirEntry) else Path(entry).stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _text(path: Path) -> str | None:
    """A small text file; None when it cannot be one."""
    try:
        with open(path, "rb") as f:
            data = f.read(MAX_JSON + 1)
        return data.decode() if len(data) <= MAX_JSON else None
    except (OSError, UnicodeDecodeError):
        return None


def _tokenizer(path: Path) -> dict[str, list[int]]:
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        for entry in entries:
            if re.fullmatch(_NAME, entry.name) and entry.is_file(follow_symlinks=False):
                stat = stat_of(entry)
                if stat[0] <= _TOKENIZER_BYTES:
                    found[entry.name] = stat
    return found


# What is in it.


def examine(path: Path, on_bytes: OnBytes | None = None) -> dict[str, Any]:
    """Size, stat and sha256 of a file, and what is wrong with it when it should be a zip of tensors (*.pt)."""
    digest, done = hashlib.sha256(), 0
    try:
        before = stat_of(path)
        with open(path, "rb") as f:
            while chunk := f.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done)
        problem = zip_problem(path) if path.suffix == ".pt" else None
        after = stat_of(path)
    except OSError as error:
        return {"ok": False, "reason": f"{path.name}: {error.strerror or error}"}
    if before != after or done != after[0]:
        return {"ok": False, "reason": f"{path.name} changed while it was read"}
    return {"ok": True, "stat": after, "sha256": digest.hexdigest(), "problem": problem}


def zip_problem(path: Path) -> str | None:
    """Why a tensor file is not whole, told by its directory and its checksums; None when it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return f"{path.name} holds compressed entries, which no checkpoint has"
            if not archive.infolist():
                return f"{path.name} is empty"
            bad = archive.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        return f"{path.name} is cut off or no tensor file ({error})"
    return None if bad is None else f"{path.name} is damaged: checksum of {bad} is wrong"


# To and from URLs.


def send(request: dict[str, Any], on_bytes: OnBytes | None = None) -> dict[str, Any]:
    """PUT the pieces of a file one after the other, hashing what is sent: {"ok", "etags", "sha256", "stat"}.

    The hash is None unless the pieces were the whole file. What went wrong: {"ok": False, "status", "reason", "etags"}.
    """
    path, hasher, done = Path(request["path"]), _Hasher(), 0
    etags: list[str | None] = []
    try:
        before = stat_of(path)
        with open(path, "rb") as f:
            for piece in request["pieces"]:
                f.seek(piece["offset"])
                reply = _put(piece, f, hasher, request["timeout"], _after(done, on_bytes))
                if not reply["ok"]:
                    return {**reply, "etags": etags}
                etags.append(reply["etag"])
                done += piece["length"]
        after = stat_of(path)
    except OSError as error:
        return {"ok": False, "status": 0, "reason": f"{path.name}: {error.strerror or error}", "etags": etags}
    finally:
        sha256 = hasher.finish()
    if before != after:
        return {"ok": False, "status": 0, "reason": f"{path.name} changed while it was sent", "etags": etags,
                "changed": True}
    return {"ok": True, "etags": etags, "sha256": sha256 if done == after[0] else None, "stat": after}


def _after(had: int, on_bytes: OnBytes | None) -> OnBytes:
    """Counts one piece on top of those before it."""
    return lambda done: on_bytes(had + done) if on_bytes is not None else None


def _put(piece: dict[str, Any], file: Any, hasher: _Hasher, timeout: float, on_bytes: OnBytes) -> dict[str, Any]:
    length = piece["length"]
    try:
        connection, target = _connect(piece["url"], timeout)
        try:
            connection.putrequest("PUT", target, skip_accept_encoding=True)
            for name, value in {**piece.get("headers", {}), "Content-Length": str(length)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            for chunk, done in _pieces(file, length):
                hasher.update(chunk)
                connection.sock.sendall(chunk)
                on_bytes(done)
            reply = connection.getresponse()
            body = reply.read(2000)
        finally:
            connection.close()
    except (http.client.HTTPException, OSError, EOFError) as error:
        return {"ok": False, "status": 0, "reason": _words(error)}
    if reply.status not in (200, 201, 204):
        return {"ok": False, "status": reply.status, "reason": _told(reply, body),
                "retry_after": reply.headers.get("Retry-After")}
    return {"ok": True, "etag": reply.headers.get("ETag")}


def _pieces(file: Any, length: int) -> Iterator[tuple[bytes, int]]:
    done = 0
    while done < length:
        chunk = file.read(min(CHUNK, length - done))
        if not chunk:
            raise EOFError("the file got shorter while it was sent")
        done += len(chunk)
        yield chunk, done


def fetch(request: dict[str, Any], on_bytes: OnBytes | None = None) -> dict[str, Any]:
    """GET a URL and throw the bytes away but for their sha256: {"ok", "status", "sha256", "bytes"}."""
    hasher, done = _Hasher(), 0
    try:
        connection, target = _connect(request["url"], request["timeout"])
        try:
            connection.request("GET", target, headers={"Accept-Encoding": "identity", **request.get("headers", {})})
            reply = connection.getresponse()
            if reply.status != 200:
                return {"ok": False, "status": reply.status, "reason": _told(reply, reply.read(2000))}
            while chunk := reply.read1(CHUNK):  # what is there: a slow line must not keep a wish to stop waiting
                hasher.update(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done)
            if reply.length:  # of the promised bytes
                return {"ok": False, "status": 0, "reason": "the connection was cut", "bytes": done}
        finally:
            connection.close()
    except (http.client.HTTPException, OSError) as error:
        return {"ok": False, "status": 0, "reason": _words(error), "bytes": done}
    finally:
        sha256 = hasher.finish()
    return {"ok": True, "status": 200, "sha256": sha256, "bytes": done}


def _connect(url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    for attempt in range(1, _ATTEMPTS + 1):
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            raise
        except (socket.gaierror, TimeoutError):
            if attempt == _ATTEMPTS:
                raise
            time.sleep(attempt)
    return connection, urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))


class _Hasher:
    """sha256 on a thread of its own, at most a few chunks behind, so that hashing and the network overlap."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def update(self, chunk: bytes) -> None:
        self._chunks.put(chunk)

    def finish(self) -> str:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()
        return self._digest.hexdigest()

    def _work(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._digest.update(chunk)


def _words(error: BaseException) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return "the connection stalled"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _told(reply: Any, body: bytes) -> str:
    """The server's own words, on one line and short."""
    text = " ".join((reply.headers.get("X-Error-Message") or body.decode(errors="replace")).split())[:200]
    return f"{reply.status} {reply.reason}" + (f": {text}" if text else "")


def _noting(note: str | None) -> OnBytes | None:
    """Progress for a caller on another machine: a line with the bytes done, twice a second."""
    if not note:
        return None
    last = [0.0]

    def on_bytes(done: int) -> None:
        now = time.monotonic()
        if now - last[0] < _NOTE_EVERY:
            return
        last[0] = now
        if Path(f"{note}.stop").exists():
            raise Stopped
        with suppress(OSError), open(note, "a") as f:
            f.write(f"{done}\n")

    return on_bytes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

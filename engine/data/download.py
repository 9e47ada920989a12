"""One large file over HTTP, whole and verified or not at all, whatever the line does.

Bytes go to `<name>.part` and stay there when the line breaks or the process ends; the next attempt asks for the rest.
The size and, where the server tells it, the sha256 must agree before the file gets its name. What is in the file, and
which files there are, is not known here.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.rundir import file_sha256, sync_dir

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 6           # in a row without one new byte
TIMEOUT_S = 30.0       # without a byte
LONGEST_WAIT_S = 60.0  # between two attempts
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')

Check = Callable[[Path], "str | None"]  # what is wrong with a file that has arrived


class DownloadError(Exception):
    """The file cannot be had; the message names the address and the cause. `retry`: another time it may."""

    def __init__(self, text: str, retry: bool) -> None:
        super().__init__(text)
        self.retry = retry


@dataclass(frozen=True)
class Fetched:
    """`sha256` is None when the server told none, so that nothing was there to compare with."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Line:
    """How to ask: the client, more headers, the first wait after a failure; whom to tell of every piece and wait."""

    client: httpx.Client
    headers: dict[str, str]
    first_wait_s: float
    arrived: Callable[[int], object]       # called with the bytes of every piece; what it raises ends the download
    again: Callable[[str, float], object]  # called with what went wrong and the seconds to wait now: waits

    def fetch(self, url: str, target: Path, check: Check) -> Fetched:
        """The file at `url` as `target`. Raises DownloadError; OSError when it cannot be written."""
        part = target.with_name(target.name + ".part")
        failures = 0
        while True:
            before = _size(part)
            try:
                fetched = self._attempt(url, part, check)
                break
            except DownloadError as error:
                failures = 0 if _size(part) > before else failures + 1
                if not error.retry or failures >= ATTEMPTS:
                    raise
                wait = min(self.first_wait_s * 2**failures, LONGEST_WAIT_S)
                self.again(str(error), wait * random.uniform(0.5, 1.0))  # not all threads at once
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, target)
        part.with_name(part.name + ".tag").unlink(missing_ok=True)
        sync_dir(target.parent)
        return fetched

    def _attempt(self, url: str, part: Path, check: Check) -> Fetched:
        """Everything from where the last attempt ended. Raises DownloadError, after dropping bytes that are wrong."""
        import httpx

        have, tag_file = _size(part), part.with_name(part.name + ".tag")
        tag = tag_file.read_text() if have and tag_file.exists() else ""
        # A server whose file is another one by now sends all of it.
        resume = {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}
        try:
            with self.client.stream("GET", url, headers={**self.headers, **resume}) as reply:
                if reply.status_code == 416:
                    part.unlink(missing_ok=True)
                _refuse(reply, url)
                total = _total(reply, have if resume else 0, url)
                new_tag = reply.headers.get("ETag", "")
                tag_file.write_text("" if new_tag.startswith("W/") else new_tag)
                with open(part, "ab" if reply.status_code == 206 else "wb") as f:
                    for piece in reply.iter_raw():  # as it comes, so that what came before a cut is kept
                        f.write(piece)
                        self.arrived(len(piece))
        except httpx.HTTPError as error:
            raise DownloadError(f"{url}: {str(error) or type(error).__name__}", retry=True) from error
        problem = _wrong(part, total, sha256 := _told_hash(reply)) or check(part)
        if problem and total is not None and _size(part) < total:
            raise DownloadError(f"{url}: {problem}", retry=True)
        if problem:
            part.unlink(missing_ok=True)
            raise DownloadError(f"{url}: {problem}", retry=True)
        return Fetched(_size(part), sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _refuse(reply: httpx.Response, url: str) -> None:
    code = reply.status_code
    if code in (200, 206):
        return
    if code in (401, 403):
        raise DownloadError(f"{url}: the server does not let us ({code}); a token in HF_TOKEN may help", retry=False)
    raise DownloadError(f"{url}: the server answered {code}", retry=code in (408, 416, 425, 429) or code >= 500)


def _total(reply: httpx.Response, have: int, url: str) -> int | None:
    """Bytes of the whole file, if the server tells."""
    if reply.status_code == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
        if told is None or int(told[1]) != have:
            raise DownloadError(f"{url}: the server sent another part than was asked for", retry=True)
        return None if told[2] == "*" else int(told[2])
    length = reply.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _told_hash(reply: httpx.Response) -> str | None:
    """The Hub names the sha256 of a large file in the answer that leads to it, some servers in the ETag."""
    for answer in (*reply.history, reply):
        for name in ("X-Linked-ETag", "ETag"):
            found = _SHA256.fullmatch(answer.headers.get(name, ""))
            if found:
                return found[1]
    return None


def _wrong(part: Path, total: int | None, sha256: str | None) -> str | None:
    size = _size(part)
    if total is not None and size != total:
        return f"{size:,} of {total:,} bytes arrived"
    if sha256 is not None and file_sha256(part) != sha256:
        return f"the bytes that arrived are not the file: their sha256 is not {sha256[:12]}…"
    return None

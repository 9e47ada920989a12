"""One file over HTTP, whole and verified or not at all, whatever the line does. Every download of the engine is here.

Bytes go to `<name>.part` and stay there when the line breaks or the process ends; the next attempt asks for the rest.
The size and the sha256, as far as we or the server know them, must agree before the file gets its name. What is in the
file, and which files there are, is not known here.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.context import StageError
from engine.data.hub import offline
from engine.rundir import file_sha256, sync_dir

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 6           # in a row without one new byte
TIMEOUT_S = 30.0       # without a byte
FIRST_WAIT_S = 2.0     # after a failure; twice that after the next
LONGEST_WAIT_S = 60.0  # between two attempts
LARGEST = 64 << 30     # bytes of a file whose size nobody tells
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "llmconsole"}  # a compressed answer could not be gone on with
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')

Check = Callable[[Path], "str | None"]  # what is wrong with a file that has arrived
Log = Callable[[str], object]
T = TypeVar("T")


class DownloadError(Exception):
    """The file cannot be had; the message names the address and the cause. `retry`: another time it may. `status` is
    the server's answer, 0 without one."""

    def __init__(self, text: str, retry: bool, status: int = 0) -> None:
        super().__init__(text)
        self.retry, self.status = retry, status


@dataclass(frozen=True)
class Known:
    """What is known of a file before it is fetched. One whose hash is known is gone on with whatever the server says of
    its version."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Fetched:
    """`sha256` is None when nobody told one, so that nothing was there to compare with."""

    size: int
    sha256: str | None


@contextmanager
def open_line(log: Log, *, headers: Mapping[str, str] | None = None) -> Iterator[Line]:
    """A line for one download after the other, which tells `log` what it waits for. Raises DownloadError where the
    network is forbidden."""
    if offline():
        raise DownloadError("HF_HUB_OFFLINE forbids the network", retry=False)

    def again(problem: str, seconds: float) -> None:
        log(f"{problem}; again in {seconds:.0f} s")
        time.sleep(seconds)

    with new_client() as client:
        yield Line(client, dict(headers or {}), FIRST_WAIT_S, lambda count: None, again)


def new_client() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(TIMEOUT_S, connect=10.0), follow_redirects=True,
                        event_hooks={"response": [_keep_encrypted]})


def _keep_encrypted(reply: httpx.Response) -> None:
    """A redirect may lead elsewhere, but not from a line that nobody reads to one that anybody can."""
    here = reply.request.url
    leads_to = here.join(reply.headers["Location"]) if reply.has_redirect_location else here
    if here.scheme == "https" and leads_to.scheme != "https":
        raise DownloadError(f"{here.host} leads to {leads_to.host} without encryption", retry=False)


@contextmanager
def explained(folder: Path, missing: Callable[[str], StageError]) -> Iterator[None]:
    """What a download below `folder` raises, as a StageError: what `missing` makes of the cause, or a full disk."""
    try:
        yield
    except DownloadError as error:
        raise missing(str(error)) from error
    except OSError as error:
        raise StageError(f"cannot write below {folder}: {error.strerror or error}",
                         "free some disk space and start again; what has arrived is kept", "disk") from error


@dataclass(frozen=True)
class Line:
    """How to ask: the client, more headers, the first wait after a failure; whom to tell of every piece and wait."""

    client: httpx.Client
    headers: dict[str, str]
    first_wait_s: float
    arrived: Callable[[int], object]       # called with the bytes of every piece; what it raises ends the download
    again: Callable[[str, float], object]  # called with what went wrong and the seconds to wait now: waits

    def fetch(self, url: str, target: Path, check: Check = lambda path: None, known: Known = Known()) -> Fetched:
        """The file at `url` as `target`. Raises DownloadError; OSError when it cannot be written."""
        part = target.with_name(target.name + ".part")
        fetched = self._persist(lambda: self._attempt(url, part, check, known), lambda: _size(part))
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, target)
        _tag_file(part).unlink(missing_ok=True)
        sync_dir(target.parent)
        return fetched

    def read(self, url: str, params: Mapping[str, str], understand: Callable[[bytes], T]) -> T:
        """A short answer, such as a listing, as what `understand` makes of it. Raises DownloadError."""
        return self._persist(lambda: self._read(url, params, understand), lambda: 0)

    def _persist(self, attempt: Callable[[], T], progress: Callable[[], int]) -> T:
        """Try until it works, or until `ATTEMPTS` in a row made no progress."""
        failures = 0
        while True:
            before = progress()
            try:
                return attempt()
            except DownloadError as error:
                failures = 0 if progress() > before else failures + 1
                if not error.retry or failures >= ATTEMPTS:
                    raise
                wait = min(self.first_wait_s * 2 ** max(failures - 1, 0), LONGEST_WAIT_S)
                self.again(str(error), wait * random.uniform(0.5, 1.0))  # not all threads at once

    def _read(self, url: str, params: Mapping[str, str], understand: Callable[[bytes], T]) -> T:
        import httpx

        try:
            reply = self.client.get(url, params=dict(params), headers={**_HEADERS, **self.headers})
        except httpx.HTTPError as error:
            raise _broken(url, error) from error
        _refuse(reply, url)
        try:
            return understand(reply.content)
        except (ValueError, KeyError, TypeError) as error:
            raise DownloadError(f"{url}: the answer makes no sense: {error}", retry=True) from error

    def _attempt(self, url: str, part: Path, check: Check, known: Known) -> Fetched:
        """Everything from where the last attempt ended. Raises DownloadError, after dropping bytes that are wrong."""
        have = _size(part)
        told = Fetched(have, None)
        if known.size is None or have < known.size:
            told = self._receive(url, part, _resume(part, have, known), known)
        total, sha256 = known.size or told.size, known.sha256 or told.sha256
        problem = _wrong(part, total, sha256) or check(part)
        if problem:
            if _size(part) >= total:
                part.unlink(missing_ok=True)
            raise DownloadError(f"{url}: {problem}", retry=True)
        return Fetched(_size(part), sha256)

    def _receive(self, url: str, part: Path, resume: dict[str, str], known: Known) -> Fetched:
        """Append to `part` what comes. The whole file's size (that of the part where nobody tells) and hash."""
        import httpx

        try:
            with self.client.stream("GET", url, headers={**_HEADERS, **self.headers, **resume}) as reply:
                if reply.status_code == 416:
                    part.unlink(missing_ok=True)
                _refuse(reply, url)
                total = _total(reply, _size(part) if resume else 0, url)
                new_tag = reply.headers.get("ETag", "")
                _tag_file(part).write_text("" if new_tag.startswith("W/") else new_tag)
                most = known.size or total or LARGEST
                with open(part, "ab" if reply.status_code == 206 else "wb") as f:
                    for piece in reply.iter_raw():  # as it comes, so that what came before a cut is kept
                        if f.tell() + len(piece) > most:
                            raise DownloadError(f"{url}: the server sends more than {most:,} bytes", retry=False)
                        f.write(piece)
                        self.arrived(len(piece))
        except httpx.HTTPError as error:
            raise _broken(url, error) from error
        return Fetched(_size(part) if total is None else total, _told_hash(reply))


def _resume(part: Path, have: int, known: Known) -> dict[str, str]:
    """The headers that ask for the rest of what is here, where that can only be the same file's."""
    tag_file = _tag_file(part)
    tag = tag_file.read_text() if have and tag_file.exists() else ""
    if tag:  # a server whose file is another one by now sends all of it
        return {"Range": f"bytes={have}-", "If-Range": tag}
    return {"Range": f"bytes={have}-"} if have and known.sha256 else {}


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _broken(url: str, error: Exception) -> DownloadError:
    return DownloadError(f"{url}: {str(error) or type(error).__name__}", retry=True)


def _refuse(reply: httpx.Response, url: str) -> None:
    code = reply.status_code
    if code in (200, 206):
        return
    if code in (401, 403):
        raise DownloadError(f"{url}: the server does not let us ({code}); a token in HF_TOKEN may help", False, code)
    raise DownloadError(f"{url}: the server answered {code}", code in (408, 416, 425, 429) or code >= 500, code)


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


def _wrong(part: Path, total: int, sha256: str | None) -> str | None:
    size = _size(part)
    if size != total:
        return f"{size:,} of {total:,} bytes arrived"
    if sha256 is not None and file_sha256(part) != sha256:
        return f"the bytes that arrived are not the file: their sha256 is not {sha256[:12]}…"
    return None

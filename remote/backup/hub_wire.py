"""The Hub's protocol, as much of it as keeping checkpoints takes: one method per request, no policy.

Plain requests with time limits of our own, because an upload that can hang for ever proves nothing. The token goes to
the Hub itself and never to another origin. What is retried is told to `on_wait` in words; a commit is never repeated
here, since an answer that failed may belong to a commit that landed. Files and checkpoints are not known.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx

from remote.errors import CopyRefused, HubUnreachable, NoSuchCopy, TokenRefused

RETRIED = (408, 429, 500, 502, 503, 504)
OnWait = Callable[[str], None]
_PIECE = 1 << 20
_LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
_MAX_REDIRECTS = 5
_MAX_PAGES = 1000  # of a listing, a thousand files each


def default_endpoint() -> str:
    """$HF_ENDPOINT, else where the Hub's own library looks."""
    if chosen := os.environ.get("HF_ENDPOINT", "").strip():
        return chosen.rstrip("/")
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, read once: it takes longer than all else about a request."""
    return httpx.create_ssl_context()


@dataclass(frozen=True)
class Listed:
    """A file in a listing. `sha256` is None for one that the Hub keeps in git itself, whose `git_sha1` it then has."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Head:
    """What the Hub says of one file before it is fetched; `location` may be another origin's signed URL."""

    size: int | None
    etag: str
    commit: str
    location: str | None


class MovedOn(Exception):
    """The branch has another head than the commit named as its parent."""


class Uncertain(Exception):
    """The commit may or may not have landed."""


class HubWire:
    """One repository at one Hub. Safe to use from several threads. `attempts` counts the first one."""

    def __init__(self, repo: str, token: str | None, *, endpoint: str | None = None, repo_type: str = "model",
                 revision: str = "main", timeout: float = 60.0, attempts: int = 5, pause: float = 1.0,
                 stop: threading.Event | None = None, on_wait: OnWait | None = None) -> None:
        self.repo, self.revision, self.timeout, self.attempts, self.pause = repo, revision, timeout, attempts, pause
        self.endpoint = (endpoint or default_endpoint()).rstrip("/")
        self.stop, self.on_wait = stop or threading.Event(), on_wait or (lambda note: None)
        self._type, self._token = repo_type, token
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(timeout, 20.0)), limits=limits,
                                  follow_redirects=False, verify=_certificates())

    def close(self) -> None:
        self._http.close()

    # Who and where.

    def whoami(self) -> str:
        return str(self._json("GET", f"{self.endpoint}/api/whoami-v2")["name"])

    def create(self) -> bool:
        """Make the repository, private; False when it was there, whatever its visibility."""
        owner, _, name = self.repo.rpartition("/")
        body = {"name": name, "organization": owner or None, "type": self._type, "private": True,
                "visibility": "private"}
        reply = self._send("POST", f"{self.endpoint}/api/repos/create", json=body, accept=(409,))
        return reply.status_code != 409

    def info(self, revision: str | None = None) -> dict[str, Any]:
        """`sha` of a revision's head, `private`, ... Raises NoSuchCopy."""
        return self._json("GET", f"{self._api()}/revision/{quote(revision or self.revision, safe='')}")

    def head_commit(self) -> str:
        return str(self.info()["sha"])

    def tree(self, revision: str, folder: str = "") -> list[Listed]:
        """Every file of a commit below a folder; [] when there is no such folder. Raises NoSuchCopy for the commit."""
        url = f"{self._api()}/tree/{quote(revision, safe='')}" + (f"/{quote(folder)}" if folder else "")
        found: list[Listed] = []
        next_url: str | None = f"{url}?recursive=true&expand=false"
        for _ in range(_MAX_PAGES):
            if next_url is None:
                return found
            reply = self._send("GET", next_url, accept=(404,))
            if reply.status_code == 404:
                if reply.headers.get("X-Error-Code") == "EntryNotFound":
                    return []
                raise NoSuchCopy(f"{self.repo} has no revision {revision}, or the token may not see it")
            found += [_listed(entry) for entry in reply.json() if entry.get("type") == "file"]
            next_url = reply.links.get("next", {}).get("url")
            if next_url:
                next_url = self._own(urljoin(url, next_url))
        raise HubUnreachable(f"the listing of {self.repo} does not end")

    def file_head(self, revision: str, path: str) -> Head:
        reply = self._follow("HEAD", self._resolve_url(revision, path))
        headers = reply.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length")
        location = urljoin(str(reply.request.url), headers["Location"]) if "Location" in headers else None
        return Head(int(size) if size and size.isdigit() else None,
                    (headers.get("X-Linked-Etag") or headers.get("ETag", "")).removeprefix("W/").strip('"'),
                    headers.get("X-Repo-Commit", ""), location)

    def small_file(self, revision: str, path: str, limit: int = 8 << 20) -> bytes:
        """A whole small file. Raises NoSuchCopy; HubUnreachable when it is longer than `limit`."""
        return self._retrying(lambda: self._read_small(revision, path, limit))

    def _read_small(self, revision: str, path: str, limit: int) -> bytes:
        data = b""
        with self.stream(self.file_url(revision, path)) as reply:
            for piece in reply.iter_bytes(_PIECE):
                data += piece
                if len(data) > limit:
                    raise HubUnreachable(f"{path} is longer than it can be")
        return data

    def file_url(self, revision: str, path: str) -> str:
        """Where the bytes are: the storage's own signed URL, or the Hub's for a file that it keeps itself."""
        return self.file_head(revision, path).location or self._resolve_url(revision, path)

    def is_own(self, url: str) -> bool:
        """Whether a URL is the Hub's own, so that it may be told the token."""
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        return (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)

    @contextmanager
    def stream(self, url: str, begin: int = 0, end: int | None = None) -> Iterator[httpx.Response]:
        """One GET, bytes `begin` to `end` (exclusive) where given; not retried.

        Raises TryAgain, and httpx errors as they are.
        """
        headers = {"Accept-Encoding": "identity", **self._auth(url)}
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
        with self._http.stream("GET", url, headers=headers) as reply:
            if reply.status_code not in (200, 206):
                reply.read()
                self._raise(reply)
            yield reply

    # Sending.

    def upload_modes(self, files: Sequence[tuple[str, int, bytes]]) -> dict[str, str]:
        """"lfs" or "regular" for (path, size, first bytes) of each file, as the Hub wants it."""
        modes: dict[str, str] = {}
        for start in range(0, len(files), 250):
            body = {"files": [{"path": path, "size": size, "sample": base64.b64encode(sample[:512]).decode()}
                              for path, size, sample in files[start:start + 250]]}
            reply = self._json("POST", f"{self._api()}/preupload/{quote(self.revision, safe='')}", json=body)
            modes |= {entry["path"]: entry["uploadMode"] for entry in reply["files"]}
        return modes

    def upload_actions(self, sha256: str, size: int) -> dict[str, Any]:
        """The LFS batch answer for one object: {} when it is stored already, else "upload" and perhaps "verify"."""
        body = {"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
                "objects": [{"oid": sha256, "size": size}], "ref": {"name": f"refs/heads/{self.revision}"}}
        url = f"{self.endpoint}/{self._prefix()}{self.repo}.git/info/lfs/objects/batch"
        entry = self._json("POST", url, json=body, headers=_LFS)["objects"][0]
        if "error" in entry:
            raise CopyRefused(f"the Hub does not take it: {entry['error'].get('message', entry['error'])}")
        return entry.get("actions") or {}

    def complete_upload(self, url: str, sha256: str, etags: Sequence[str]) -> None:
        parts = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
        self._send("POST", url, json={"oid": sha256, "parts": parts}, headers=_LFS)

    def verify_upload(self, url: str, sha256: str, size: int) -> None:
        self._send("POST", url, json={"oid": sha256, "size": size}, headers=_LFS)

    def put_bytes(self, url: str, headers: Mapping[str, str], data: bytes) -> str:
        """Send one small object; its ETag."""
        return self._send("PUT", url, content=data, headers=headers).headers.get("ETag", "")

    def commit(self, lines: Sequence[Mapping[str, Any]], parent: str) -> str:
        """One commit on top of `parent`; its id. Raises MovedOn, or Uncertain when nobody knows."""
        header = {**lines[0], "value": {**lines[0]["value"], "parentCommit": parent}}
        body = "".join(json.dumps(line) + "\n" for line in [header, *lines[1:]]).encode()
        url = f"{self._api()}/commit/{quote(self.revision, safe='')}"
        try:
            reply = self._http.post(url, content=body,
                                    headers={"Content-Type": "application/x-ndjson", **self._auth(url)})
        except httpx.TransportError as error:
            raise Uncertain(f"no answer to the commit ({_words(error)})") from error
        if reply.status_code == 412:
            raise MovedOn(_told(reply))
        if reply.status_code in RETRIED:
            raise Uncertain(f"{reply.status_code} from the Hub")
        if reply.is_error:
            self._raise(reply)
        return str(reply.json()["commitOid"])

    # How requests are made.

    def wait(self, number: int, reason: str, retry_after: str | None = None, say: OnWait | None = None) -> None:
        """Before try `number` + 1: say why, and wait. Raises HubUnreachable when there is no further try."""
        if number >= self.attempts or self.stop.is_set():
            raise HubUnreachable(f"{reason}, after {number} tries")
        pause = min(self.pause * 2 ** (number - 1), 30.0)
        if retry_after and retry_after.strip().isdigit():
            pause = min(max(pause, float(retry_after)), 300.0)
        (say or self.on_wait)(f"{reason}, try {number + 1} of {self.attempts} in {pause:.0f} s")
        if self.stop.wait(pause):
            raise HubUnreachable(f"{reason}; stopped before the next try")

    def _retrying(self, ask: Callable[[], Any]) -> Any:
        number = 1
        while True:
            try:
                return ask()
            except httpx.TransportError as error:
                self.wait(number, f"no answer from the Hub ({_words(error)})")
            except TryAgain as again:
                self.wait(number, str(again), again.retry_after)
            number += 1

    def _send(self, method: str, url: str, *, accept: Sequence[int] = (), **request: Any) -> httpx.Response:
        headers = {**request.pop("headers", {}), **self._auth(url)}

        def ask() -> httpx.Response:
            reply = self._http.request(method, url, headers=headers, **request)
            if reply.is_error and reply.status_code not in accept:
                self._raise(reply)
            return reply

        return self._retrying(ask)

    def _follow(self, method: str, url: str) -> httpx.Response:
        """A request whose redirects are followed within the Hub and reported when they lead elsewhere."""
        for _ in range(_MAX_REDIRECTS):
            reply = self._send(method, url, headers={"Accept-Encoding": "identity"})
            target = urljoin(url, reply.headers.get("Location", ""))
            if not reply.is_redirect or not self.is_own(target) or "X-Linked-Etag" in reply.headers:
                return reply
            url = target
        raise HubUnreachable("the Hub redirects for ever")

    def _json(self, method: str, url: str, **request: Any) -> Any:
        reply = self._send(method, url, **request)
        try:
            return reply.json()
        except ValueError as error:
            raise HubUnreachable(f"the Hub answered {urlsplit(url).path} with something that is no JSON") from error

    def _raise(self, reply: httpx.Response) -> None:
        status = reply.status_code
        if status in RETRIED:
            raise TryAgain(f"{status} from the Hub", _pause_asked(reply))
        if status == 401:
            raise TokenRefused(f"the Hub does not know the token, or there is no {self.repo}: {_told(reply)}")
        if status == 403 and self.is_own(str(reply.request.url)):
            raise TokenRefused(f"the token may not do this with {self.repo}: {_told(reply)}")
        if status == 404:
            raise NoSuchCopy(f"not there: {self.repo} ({_told(reply)})")
        raise Refused(f"the Hub refused: {_told(reply)}")

    def _auth(self, url: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token and self.is_own(url) else {}

    def _own(self, url: str) -> str:
        if not self.is_own(url):
            raise HubUnreachable("the Hub's listing goes on at another origin")
        return url

    def _api(self) -> str:
        return f"{self.endpoint}/api/{self._type}s/{self.repo}"

    def _prefix(self) -> str:
        return "" if self._type == "model" else f"{self._type}s/"

    def _resolve_url(self, revision: str, path: str) -> str:
        return f"{self.endpoint}/{self._prefix()}{self.repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


class Refused(HubUnreachable):
    """An answer that asking again does not change."""


class TryAgain(Exception):
    """The Hub is busy or ailing; the answer says for how long, perhaps."""

    def __init__(self, text: str, retry_after: str | None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def _pause_asked(reply: httpx.Response) -> str | None:
    """Retry-After, or the window's rest from a header such as RateLimit: "api";r=0;t=12."""
    for field in reply.headers.get("RateLimit", "").split(";"):
        name, _, value = field.strip().partition("=")
        if name == "t" and value.isdigit():
            return str(int(value) + 1)
    return reply.headers.get("Retry-After")


def _listed(entry: Mapping[str, Any]) -> Listed:
    lfs = entry.get("lfs") or {}
    return Listed(str(entry["path"]), int(lfs.get("size", entry.get("size", -1))),
                  lfs.get("oid") or lfs.get("sha256"), None if lfs else entry.get("oid"))


def _words(error: Exception) -> str:
    return "it stalled" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__


def _told(reply: httpx.Response) -> str:
    """The server's own words, on one line and short."""
    text = reply.headers.get("X-Error-Message") or reply.text
    return f"{reply.status_code} {' '.join(text.split())[:200]}".strip()

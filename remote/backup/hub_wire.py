"""The Hub's protocol, as much of it as keeping checkpoints takes: one method per request, no policy.

A commit is never repeated here, since an answer that failed may belong to a commit that landed. How requests are made
is the business of `remote.backup.hub_http`. Files and checkpoints are not known.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

import httpx

from remote.backup.hub_http import RETRIED, HubHttp, as_expected, told_by, words_of
from remote.errors import CopyRefused, HubUnreachable, NoSuchCopy

_PIECE = 1 << 20
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
_MAX_PAGES = 1000  # of a listing, a thousand files each


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


class HubWire(HubHttp):
    """One repository at one Hub. Raises CopyRefused for a name that no repository can have."""

    def __init__(self, repo: str, token: str | None, *, repo_type: str = "model", revision: str = "main",
                 **how: Any) -> None:
        if not _REPO.fullmatch(repo):
            raise CopyRefused(f"{repo!r} is no repository: write OWNER/NAME")
        super().__init__(repo, token, **how)
        self.repo, self.revision, self._type = repo, revision, repo_type

    # Who and where.

    def whoami(self) -> str:
        with as_expected("who we are"):
            return str(self.json("GET", f"{self.endpoint}/api/whoami-v2")["name"])

    def create(self) -> bool:
        """Make the repository, private; False when it was there, whatever its visibility."""
        owner, _, name = self.repo.rpartition("/")
        body = {"name": name, "organization": owner or None, "type": self._type, "private": True,
                "visibility": "private"}
        reply = self.send("POST", f"{self.endpoint}/api/repos/create", json=body, accept=(409,))
        return reply.status_code != 409

    def info(self, revision: str | None = None) -> dict[str, Any]:
        """`sha` of a revision's head, `private`, ... Raises NoSuchCopy."""
        return self.json("GET", f"{self._api()}/revision/{quote(revision or self.revision, safe='')}")

    def head_commit(self) -> str:
        with as_expected("what the head is"):
            return str(self.info()["sha"])

    def tree(self, revision: str, folder: str = "") -> list[Listed]:
        """Every file of a commit below a folder; [] when there is no such folder. Raises NoSuchCopy for the commit."""
        url = f"{self._api()}/tree/{quote(revision, safe='')}" + (f"/{quote(folder)}" if folder else "")
        found: list[Listed] = []
        next_url: str | None = f"{url}?recursive=true&expand=false"
        for _ in range(_MAX_PAGES):
            if next_url is None:
                return found
            reply = self.send("GET", next_url, accept=(404,))
            if reply.status_code == 404:
                if reply.headers.get("X-Error-Code") == "EntryNotFound":
                    return []
                raise NoSuchCopy(f"{self.repo} has no revision {revision}, or the token may not see it")
            with as_expected("the listing"):
                found += [_listed(entry) for entry in reply.json() if entry.get("type") == "file"]
            next_url = reply.links.get("next", {}).get("url")
            if next_url:
                next_url = self.own(urljoin(url, next_url))
        raise HubUnreachable(f"the listing of {self.repo} does not end")

    def file_head(self, revision: str, path: str) -> Head:
        reply = self.follow("HEAD", self._resolve_url(revision, path))
        headers = reply.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length")
        there = headers.get("Location")
        location = self.led_to(urljoin(str(reply.request.url), there)) if there else None
        return Head(int(size) if size and size.isdigit() else None,
                    (headers.get("X-Linked-Etag") or headers.get("ETag", "")).removeprefix("W/").strip('"'),
                    headers.get("X-Repo-Commit", ""), location)

    def small_file(self, revision: str, path: str, limit: int = 8 << 20) -> bytes:
        """A whole small file. Raises NoSuchCopy; HubUnreachable when it is longer than `limit`."""
        return self.retrying(lambda: self._read_small(revision, path, limit))

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

    # Sending.

    def upload_modes(self, files: Sequence[tuple[str, int, bytes]]) -> dict[str, str]:
        """"lfs" or "regular" for (path, size, first bytes) of each file, as the Hub wants it."""
        modes: dict[str, str] = {}
        for start in range(0, len(files), 250):
            body = {"files": [{"path": path, "size": size, "sample": base64.b64encode(sample[:512]).decode()}
                              for path, size, sample in files[start:start + 250]]}
            reply = self.json("POST", f"{self._api()}/preupload/{quote(self.revision, safe='')}", json=body)
            with as_expected("how to send"):
                modes |= {entry["path"]: entry["uploadMode"] for entry in reply["files"]}
        return modes

    def upload_actions(self, sha256: str, size: int) -> dict[str, Any]:
        """The LFS batch answer for one object: {} when it is stored already, else "upload" and perhaps "verify"."""
        body = {"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
                "objects": [{"oid": sha256, "size": size}], "ref": {"name": f"refs/heads/{self.revision}"}}
        url = f"{self.endpoint}/{self._prefix()}{self.repo}.git/info/lfs/objects/batch"
        reply = self.json("POST", url, json=body, headers=_LFS)
        with as_expected("where to send"):
            entry = reply["objects"][0]
            if "error" in entry:
                raise CopyRefused(f"the Hub does not take it: {entry['error'].get('message', entry['error'])}")
            actions: dict[str, Any] = dict(entry.get("actions") or {})
            upload = actions.get("upload") or {}
            parts = [url for key, url in (upload.get("header") or {}).items() if key.isdigit()]
            for place in [action["href"] for action in actions.values()] + parts:
                self.led_to(place)
        return actions

    def complete_upload(self, url: str, sha256: str, etags: Sequence[str]) -> None:
        parts = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
        self.send("POST", url, json={"oid": sha256, "parts": parts}, headers=_LFS)

    def verify_upload(self, url: str, sha256: str, size: int) -> None:
        self.send("POST", url, json={"oid": sha256, "size": size}, headers=_LFS)

    def commit(self, lines: Sequence[Mapping[str, Any]], parent: str) -> str:
        """One commit on top of `parent`; its id. Raises MovedOn, or Uncertain when nobody knows."""
        header = {**lines[0], "value": {**lines[0]["value"], "parentCommit": parent}}
        body = "".join(json.dumps(line) + "\n" for line in [header, *lines[1:]]).encode()
        url = f"{self._api()}/commit/{quote(self.revision, safe='')}"
        try:
            reply = self._http.post(url, content=body,
                                    headers={"Content-Type": "application/x-ndjson", **self.auth(url)})
        except httpx.TransportError as error:
            raise Uncertain(f"no answer to the commit ({words_of(error)})") from error
        if reply.status_code == 412:
            raise MovedOn(told_by(reply))
        if reply.status_code in RETRIED:
            raise Uncertain(f"{reply.status_code} from the Hub")
        if reply.is_error:
            self.raise_for(reply)
        try:
            return str(reply.json()["commitOid"])
        except (ValueError, KeyError, TypeError) as error:
            raise Uncertain("the Hub's answer to the commit names none") from error

    def _api(self) -> str:
        return f"{self.endpoint}/api/{self._type}s/{self.repo}"

    def _prefix(self) -> str:
        return "" if self._type == "model" else f"{self._type}s/"

    def _resolve_url(self, revision: str, path: str) -> str:
        return f"{self.endpoint}/{self._prefix()}{self.repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def _listed(entry: Mapping[str, Any]) -> Listed:
    lfs = entry.get("lfs") or {}
    return Listed(str(entry["path"]), int(lfs.get("size", entry.get("size", -1))),
                  lfs.get("oid") or lfs.get("sha256"), None if lfs else entry.get("oid"))



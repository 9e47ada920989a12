"""A Hub on loopback that speaks the real one's wire protocol, and can fail or lie in every way that one was seen to.

    python tests/safekeeping/fake_hub.py --dir DIR [--port N] [--token T] [--lie garbage]

Repositories are in memory, objects on disk. The storage answers at another host name (localhost for 127.0.0.1), so that
whoever sends it the token is caught. Every request is logged as (route, method, path, bytes).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 1 << 20


@dataclass
class Fault:
    """One misbehaviour of a route: `how` is status, cut (before an answer), cut_late (half an answer), stall, drip.

    `after` requests of that route are served well first; then `times` go wrong.
    """

    route: str
    how: str
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    seconds: float = 30.0


@dataclass
class Entry:
    size: int
    sha256: str | None
    data: bytes | None = None

    @property
    def git_sha1(self) -> str:
        body = self.data if self.data is not None else f"pointer {self.sha256}".encode()
        return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, Entry]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)


class FakeHub:
    """`lie`: None, or how the storage betrays: garbage, flip, truncate, missing, sizes (the listing), headers."""

    def __init__(self, folder: Path, token: str = "secret-token", multipart: int | None = None) -> None:
        self.folder, self.token, self.multipart = folder, token, multipart
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True, exist_ok=True)
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.lie: str | None = None
        self.page = 1000
        self.log: list[tuple[str, str, str, int]] = []
        self.leaked: list[str] = []
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.guard = threading.RLock()
        self.can_write = True

    def serve(self, port: int = 0) -> ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            fake = hub

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.server, self.port = server, server.server_address[1]
        self.endpoint, self.storage = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        return server

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def routes(self, name: str) -> list[tuple[str, str, str, int]]:
        return [row for row in self.log if row[0] == name]

    def head(self, repo: str) -> Commit:
        return self.repos[repo].commits[-1]

    def add_repo(self, repo: str, private: bool = True, files: dict[str, bytes] | None = None) -> str:
        """A repository with files already in it; large ones in the storage, as the real one keeps them."""
        entries = {}
        for path, data in {".gitattributes": b"*.pt filter=lfs\n", **(files or {})}.items():
            sha256 = hashlib.sha256(data).hexdigest()
            if is_large(path, len(data), data[:512]):
                (self.objects / sha256).write_bytes(data)
                entries[path] = Entry(len(data), sha256)
            else:
                entries[path] = Entry(len(data), None, data)
        self.repos[repo] = Repo(private, [Commit(secrets.token_hex(20), "initial commit", entries)])
        return self.head(repo).oid

    def fault_for(self, route: str) -> Fault | None:
        with self.guard:
            for fault in self.faults:
                if fault.route == route:
                    if fault.after > 0:
                        fault.after -= 1
                        return None
                    if fault.times > 0:
                        fault.times -= 1
                        return fault
        return None


def is_large(path: str, size: int, sample: bytes) -> bool:
    return size > 0 and (path.endswith((".pt", ".safetensors", ".bin", ".pkl")) or size > 10 << 20 or b"\0" in sample)


class Reply(Exception):
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


NAME = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, str]] = [
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create", "POST", r"/api/repos/create"),
    ("yaml", "POST", r"/api/validate-yaml"),
    ("preupload", "POST", rf"/api/(?:models|datasets)/{NAME}/preupload/(?P<rev>[^/]+)"),
    ("commit", "POST", rf"/api/(?:models|datasets)/{NAME}/commit/(?P<rev>[^/]+)"),
    ("tree", "GET", rf"/api/(?:models|datasets)/{NAME}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?"),
    ("paths", "POST", rf"/api/(?:models|datasets)/{NAME}/paths-info/(?P<rev>[^/]+)"),
    ("info", "GET", rf"/api/(?:models|datasets)/{NAME}/revision/(?P<rev>[^/]+)"),
    ("info", "GET", rf"/api/(?:models|datasets)/{NAME}"),
    ("batch", "POST", rf"/(?:datasets/)?{NAME}\.git/info/lfs/objects/batch"),
    ("verify", "POST", rf"/verify/{NAME}"),
    ("put", "PUT", r"/storage/put/(?P<sha>[0-9a-f]{64})"),
    ("part", "PUT", r"/storage/part/(?P<sha>[0-9a-f]{64})/(?P<number>\d+)"),
    ("complete", "POST", r"/storage/complete/(?P<sha>[0-9a-f]{64})"),
    ("get", "GET", r"/storage/get/(?P<sha>[0-9a-f]{64})"),
    ("resolve_head", "HEAD", rf"/(?:datasets/)?{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
    ("resolve", "GET", rf"/(?:datasets/)?{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _any(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        for name, method, pattern in ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and method == self.command:
                self.route, self.args = name, {k: unquote(v) for k, v in match.groupdict().items() if v}
                break
        else:
            self.route, self.args = "other", {}
        size = int(self.headers.get("Content-Length") or 0)
        self.fake.log.append((self.route, self.command, self.path, size))
        try:
            try:
                self._answer()
            except Reply as reply:
                self._write(reply)
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = _any

    def _answer(self) -> None:
        fault = self.fake.fault_for(self.route)
        self.landed: Fault | None = None
        if fault is not None:
            if fault.how == "landed":
                self.landed = fault
            else:
                self._misbehave(fault)
        if self.path.startswith("/storage/") and "Authorization" in self.headers:
            self.fake.leaked.append(self.path)
        handler: Callable[[], None] | None = getattr(self, f"_do_{self.route}", None)
        if handler is None:
            self._body()
            raise Reply(404, {"error": "no such route"})
        if self.route not in ("yaml", "put", "part", "complete", "get"):
            self._authorize()
        handler()

    def _misbehave(self, fault: Fault) -> None:
        if fault.how == "status":
            self._body()
            raise Reply(fault.status, {"error": "made to fail"}, fault.headers)
        if fault.how == "cut":
            if self.command == "PUT":
                self.rfile.read(min(int(self.headers["Content-Length"]), PIECE) // 2)
            self._cut()
        if fault.how == "stall":
            time.sleep(fault.seconds)
            self._cut()
        self.fault = fault  # cut_late and drip are known to whoever sends bytes

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionError

    def _authorize(self) -> None:
        told = self.headers.get("Authorization", "")
        if told != f"Bearer {self.fake.token}":
            self._body()
            raise Reply(401, {"error": "Invalid username or password."})

    def _body(self) -> bytes:
        size = int(self.headers.get("Content-Length") or 0)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while count := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(count)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(size)

    def _json(self) -> Any:
        return json.loads(self._body() or b"{}")

    def _write(self, reply: Reply) -> None:
        if isinstance(reply.body, bytes):
            body, kind = reply.body, "application/octet-stream"
        else:
            body, kind = json.dumps(reply.body).encode() if reply.body is not None else b"", "application/json"
        self.send_response(reply.status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Request-Id": secrets.token_hex(4),
                   **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # Repositories.

    def _repo(self) -> Repo:
        repo = self.fake.repos.get(self.args["repo"])
        if repo is None:
            raise Reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repo

    def _commit(self) -> Commit:
        rev = self.args.get("rev", "main")
        repo = self._repo()
        if rev in ("main", "refs/heads/main"):
            return repo.commits[-1]
        found = [commit for commit in repo.commits if commit.oid == rev]
        if not found:
            raise Reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return found[0]

    def _do_whoami(self) -> None:
        raise Reply(200, {"name": "me", "type": "user", "orgs": [],
                          "auth": {"accessToken": {"role": "write", "displayName": "t"}}})

    def _do_create(self) -> None:
        asked = self._json()
        if not self.fake.can_write:
            raise Reply(403, {"error": "this token may only read"})
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        with self.fake.guard:
            if name in self.fake.repos:
                raise Reply(409, {"error": "You already created this repo", "url": f"{self.fake.endpoint}/{name}"})
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.fake.add_repo(name, private)
        raise Reply(200, {"url": f"{self.fake.endpoint}/{name}", "name": name, "id": name})

    def _do_yaml(self) -> None:
        self._body()
        raise Reply(200, {"errors": [], "warnings": []})

    def _do_info(self) -> None:
        commit = self._commit()
        raise Reply(200, {"_id": "1", "id": self.args["repo"], "modelId": self.args["repo"], "sha": commit.oid,
                          "private": self._repo().private, "tags": [], "downloads": 0, "likes": 0,
                          "siblings": [{"rfilename": path} for path in commit.files]})

    def _do_preupload(self) -> None:
        files = self._json()["files"]
        raise Reply(200, {"files": [{"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if is_large(
            f["path"], f["size"], base64.b64decode(f["sample"])) else "regular"} for f in files]})

    def _do_tree(self) -> None:
        commit, folder = self._commit(), self.args.get("path", "").rstrip("/")
        names = sorted(path for path in commit.files if not folder or path.startswith(folder + "/"))
        if folder and not names:
            raise Reply(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.fake.page < len(names):
            path = urlsplit(self.path).path
            headers["Link"] = f'<{self.fake.endpoint}{path}?recursive=true&cursor={start + self.fake.page}>; rel="next"'
        rows = [self._row(path, commit.files[path]) for path in names[start:start + self.fake.page]]
        raise Reply(200, rows, headers)

    def _row(self, path: str, entry: Entry) -> dict[str, Any]:
        size = entry.size + (7 if self.fake.lie == "sizes" and entry.sha256 else 0)
        row: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": entry.git_sha1}
        if entry.sha256:
            row["lfs"] = {"oid": entry.sha256, "size": size, "pointerSize": 134}
        return row

    def _do_paths(self) -> None:
        asked = parse_qs(self._body().decode())
        files = self._commit().files
        raise Reply(200, [self._row(path, files[path]) for path in asked.get("paths", []) if path in files])

    def _do_commit(self) -> None:
        lines = [json.loads(line) for line in self._body().splitlines() if line.strip()]
        with self.fake.guard:
            repo = self._repo()
            if not self.fake.can_write:
                raise Reply(403, {"error": "this token may only read"})
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, repo.commits[-1].oid):
                raise Reply(412, {"error": "A commit has happened since. Please refresh and try again."})
            files = dict(repo.commits[-1].files)
            for line in lines[1:]:
                self._apply(files, line["key"], line["value"])
            commit = Commit(secrets.token_hex(20), header.get("summary", ""), files)
            repo.commits.append(commit)
        if self.landed is not None:
            raise Reply(self.landed.status, {"error": "something went wrong"})
        raise Reply(200, {"success": True, "commitOid": commit.oid, "pullRequestUrl": None,
                          "commitUrl": f"{self.fake.endpoint}/{self.args['repo']}/commit/{commit.oid}"})

    def _apply(self, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            data = base64.b64decode(value["content"])
            files[value["path"]] = Entry(len(data), None, data)
        elif key == "lfsFile":
            if not (self.fake.objects / value["oid"]).exists() and self.fake.lie is None:
                raise Reply(400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"})
            files[value["path"]] = Entry(value["size"], value["oid"])
        elif key == "deletedFile":
            files.pop(value["path"])
        else:
            for path in [path for path in files if path.startswith(value["path"])]:
                files.pop(path)

    # Storage.

    def _do_batch(self) -> None:
        rows = []
        for item in self._json()["objects"]:
            sha, size = item["oid"], item["size"]
            row: dict[str, Any] = {"oid": sha, "size": size}
            if not (self.fake.objects / sha).exists():
                row["actions"] = {"upload": self._place(sha, size), "verify": {
                    "href": f"{self.fake.endpoint}/verify/{self.args['repo']}"}}
            rows.append(row)
        raise Reply(200, {"transfer": "basic", "objects": rows}, {"Content-Type": "application/vnd.git-lfs+json"})

    def _place(self, sha: str, size: int) -> dict[str, Any]:
        chunk = self.fake.multipart
        if chunk is None or size <= chunk:
            return {"href": f"{self.fake.storage}/storage/put/{sha}?sig={secrets.token_hex(8)}"}
        upload = secrets.token_hex(8)
        urls = {f"{n:05d}": f"{self.fake.storage}/storage/part/{sha}/{n}?upload={upload}"
                for n in range(1, -(-size // chunk) + 1)}
        return {"href": f"{self.fake.storage}/storage/complete/{sha}?upload={upload}",
                "header": {"chunk_size": str(chunk), **urls}}

    def _do_put(self) -> None:
        target = self.fake.objects / self.args["sha"]
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        left = int(self.headers["Content-Length"])
        with open(partial, "wb") as f:
            while left and (piece := self.rfile.read1(min(left, PIECE))):
                f.write(piece)
                left -= len(piece)
        if left:
            partial.unlink()
            raise ConnectionError
        self._store(partial, target)
        raise Reply(200, None, {"ETag": '"whole"'})

    def _store(self, partial: Path, target: Path) -> None:
        if self.fake.lie == "garbage":
            partial.write_bytes(secrets.token_bytes(partial.stat().st_size))
        partial.replace(target)

    def _do_part(self) -> None:
        data = self._body()
        upload = self.query["upload"][0]
        with self.fake.guard:
            self.fake.uploads.setdefault(upload, {})[int(self.args["number"])] = data
        raise Reply(200, None, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _do_complete(self) -> None:
        asked, parts = self._json(), self.fake.uploads.get(self.query["upload"][0], {})
        wanted = [f'"{hashlib.md5(parts[n]).hexdigest()}"' for n in sorted(parts)]
        if [part["etag"] for part in asked["parts"]] != wanted:
            raise Reply(400, {"error": "the parts do not fit"})
        target = self.fake.objects / self.args["sha"]
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        partial.write_bytes(b"".join(parts[n] for n in sorted(parts)))
        self._store(partial, target)
        raise Reply(200, {})

    def _do_verify(self) -> None:
        asked = self._json()
        path = self.fake.objects / asked["oid"]
        if not path.exists() or path.stat().st_size != asked["size"]:
            raise Reply(404, {"error": "not stored"})
        raise Reply(200, {})

    # Reading.

    def _entry(self) -> tuple[Commit, Entry]:
        commit = self._commit()
        entry = commit.files.get(self.args["path"])
        if entry is None:
            raise Reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        return commit, entry

    def _do_resolve_head(self) -> None:
        commit, entry = self._entry()
        etag = f'"{entry.sha256 or entry.git_sha1}"'
        headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
        if entry.sha256:
            size = entry.size + (3 if self.fake.lie == "headers" else 0)
            headers |= {"Location": self._signed(entry.sha256), "X-Linked-Etag": etag, "X-Linked-Size": str(size)}
            raise Reply(302, None, headers)
        raise Reply(200, None, {**headers, "Content-Length": str(entry.size)})

    def _signed(self, sha: str) -> str:
        return f"{self.fake.storage}/storage/get/{sha}?sig={secrets.token_hex(8)}"

    def _do_resolve(self) -> None:
        commit, entry = self._entry()
        if entry.sha256:
            raise Reply(302, None, {"Location": self._signed(entry.sha256), "X-Repo-Commit": commit.oid})
        assert entry.data is not None
        raise Reply(200, entry.data, {"X-Repo-Commit": commit.oid, "ETag": f'"{entry.git_sha1}"'})

    def _do_get(self) -> None:
        path = self.fake.objects / self.args["sha"]
        if self.fake.lie == "missing" or not path.exists():
            raise Reply(404, {"error": "no such object"})
        size = path.stat().st_size
        begin, end = 0, size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match and self.fake.lie != "no ranges":
            begin, end = int(match[1]), min(int(match[2] or size - 1) + 1, size)
            if begin >= size:
                raise Reply(416, None, {"Content-Range": f"bytes */{size}"})
        if self.fake.lie == "truncate":
            end = max(end - 100, begin)
        self.send_response(206 if match and self.fake.lie != "no ranges" else 200)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.args["sha"]}"')
        if match and self.fake.lie != "no ranges":
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.end_headers()
        self._send_bytes(path, begin, end)

    def _send_bytes(self, path: Path, begin: int, end: int) -> None:
        fault, self.fault = getattr(self, "fault", None), None
        flipped = path.stat().st_size // 2 if self.fake.lie == "flip" else -1
        with open(path, "rb") as f:
            f.seek(begin)
            if fault is None and flipped < 0:
                self.wfile.flush()
                self.connection.sendfile(f, begin, end - begin)
                return
            at = begin
            while at < end:
                piece = f.read(min(1 << 14 if fault else PIECE, end - at))
                if at <= flipped < at + len(piece):
                    piece = piece[:flipped - at] + bytes([piece[flipped - at] ^ 1]) + piece[flipped - at + 1:]
                self.wfile.write(piece)
                at += len(piece)
                if fault is not None and fault.how == "cut_late" and at - begin >= (end - begin) // 2:
                    self._cut()
                if fault is not None and fault.how == "drip":
                    time.sleep(fault.seconds / 10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="secret-token")
    parser.add_argument("--lie", default=None)
    asked = parser.parse_args()
    hub = FakeHub(asked.dir, asked.token)
    hub.lie = asked.lie
    hub.serve(asked.port)
    print(f"HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    shutil.rmtree(hub.objects, ignore_errors=True)


if __name__ == "__main__":
    main()

"""A double of RunPod on loopback, whose pods are real shells in a folder: the whole rented evening for nothing.

It speaks the published REST v2 (pods, logs as server-sent events, catalogue, billing), answers closed request bodies as
the real one does, and can be told to fail in every known way (`cloud.plan`). `remote.fake_runpod.process` runs it as a
process of its own.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from remote.fake_runpod.cloud import FakeCloud, Life, Refused
from remote.fake_runpod.replies import bill, catalogue, pod_json, violations

_LARGEST = 102_400
_POD = re.compile(r"/v2/pods/([A-Za-z0-9]+)(/logs|/action)?")


class FakeRunPod:
    """The server. `key` is the account's API key; `later_fields=False` makes it as old as the published file."""

    def __init__(self, cloud: FakeCloud, *, key: str = "", port: int = 0, later_fields: bool = True) -> None:
        self.cloud, self.key, self.later_fields = cloud, key or f"rpa_DEMO{secrets.token_hex(12)}", later_fields
        self.stop = threading.Event()
        self.requests: list[tuple[str, str]] = []  # (method, path) of each
        self._server = _Server(("127.0.0.1", port), self)
        self.base = f"http://127.0.0.1:{self._server.server_port}/v2"
        self.graphql = f"http://127.0.0.1:{self._server.server_port}/graphql"
        cloud.base = self.base
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="fake-runpod", daemon=True).start()
        threading.Thread(target=self._tick, name="fake-runpod-clock", daemon=True).start()

    def close(self) -> None:
        """End every pod and stop listening."""
        self.stop.set()
        self.cloud.end_all()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FakeRunPod:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tick(self) -> None:
        while not self.stop.wait(0.2):
            self.cloud.tick()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], owner: FakeRunPod) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection. Replies have RunPod's shapes, headers and status codes."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: standard error belongs to whoever started us."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.server.owner.cloud.clock() if timestamp is None else timestamp)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        owner, parts = self.server.owner, urlsplit(self.path)
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _LARGEST + 1))
        owner.requests.append((method, parts.path))
        try:
            self._interfere()
            life = self._caller(parts.path)
            reply = self._route(method, parts.path, dict(parse_qsl(parts.query)), body, life)
            if reply is not None:
                self._send(*reply)
        except Refused as error:
            words = {"title": _TITLES.get(error.status, "Error"), "status": error.status, "detail": error.detail,
                     **({"errors": error.errors} if error.errors else {})}
            self._send(error.status, words, "application/problem+json",
                       {"Retry-After": "1"} if error.status == 429 else {})
        except _HungUp:
            self.close_connection = True
            self.connection.close()

    def _interfere(self) -> None:
        cloud = self.server.owner.cloud
        if cloud.due("edge"):
            self._send_raw(403, b"<html><title>Access denied | Cloudflare</title>error code: 1010</html>", "text/html")
            raise _HungUp
        if cloud.due("rate_limited"):
            raise Refused(429, "rate limit exceeded for the minute window; retry in 1 s")
        if cloud.due("error_before"):
            raise Refused(500, "Something went wrong. Please try again later or contact support.")

    def _caller(self, path: str) -> Life | None:
        """The pod whose own key was shown, None for the account. Raises Refused."""
        owner = self.server.owner
        shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if secrets.compare_digest(shown.encode(), owner.key.encode()):
            return None
        for life in list(owner.cloud.lives.values()):
            if secrets.compare_digest(shown.encode(), life.key.encode()):
                if f"/pods/{life.id}" not in path:
                    raise Refused(403, "access denied")
                return life
        raise Refused(401, "missing bearer token" if not shown else "invalid bearer token")

    def _route(self, method: str, path: str, query: dict[str, str], body: bytes, caller: Life | None
               ) -> tuple[int, dict[str, Any] | None] | None:
        cloud = self.server.owner.cloud
        if (method, path) == ("GET", "/v2/pods"):
            return 200, {"pods": [pod_json(cloud, life) for life in cloud.visible()]}
        if (method, path) == ("POST", "/v2/pods"):
            return self._create(body)
        if (method, path) == ("GET", "/v2/catalog/gpus"):
            return 200, {"gpus": catalogue(cloud, query)}
        if (method, path) == ("GET", "/v2/billing/pods"):
            return 200, bill(cloud, query)
        if (method, path) == ("POST", "/graphql"):
            return 200, {"data": {"myself": {"clientBalance": round(cloud.balance, 4), "spendLimit": cloud.spend_limit,
                                             "currentSpendPerHr": round(cloud.spend_per_hour, 4)}}}
        found = _POD.fullmatch(path)
        if not found:
            raise Refused(404, "resource not found")
        return self._pod(method, cloud.find(found[1]), found[2] or "", query, body)

    def _pod(self, method: str, life: Life, rest: str, query: dict[str, str], body: bytes
             ) -> tuple[int, dict[str, Any] | None] | None:
        cloud = self.server.owner.cloud
        if (method, rest) == ("GET", ""):
            return 200, pod_json(cloud, life)
        if (method, rest) == ("GET", "/logs"):
            self._stream(life, query)
            return None
        if (method, rest) == ("DELETE", ""):
            return self._terminate(life)
        if (method, rest) == ("POST", "/action"):
            action = _object(body).get("action")
            if action == "terminate":
                return self._terminate(life)
            raise Refused(409 if action in ("start", "stop", "restart") else 422, f"action {action!r} is not valid now")
        raise Refused(405, "The requested method is not allowed for this path.")

    def _create(self, body: bytes) -> tuple[int, dict[str, Any]]:
        cloud = self.server.owner.cloud
        if len(body) > _LARGEST:
            raise Refused(413, "request body too large")
        wanted = _object(body)
        errors = violations(wanted, self.server.owner.later_fields)
        if errors:
            raise Refused(422, "Request validation failed.", errors)
        life = cloud.create(wanted)
        if cloud.due("reply_lost"):
            raise _HungUp
        if cloud.due("error_after"):
            raise Refused(500, "Something went wrong. Please try again later or contact support.")
        return 201, pod_json(cloud, life)

    def _terminate(self, life: Life) -> tuple[int, None]:
        cloud = self.server.owner.cloud
        if cloud.due("terminate_fails"):
            raise Refused(500, "Something went wrong. Please try again later or contact support.")
        if not cloud.due("terminate_ignored"):
            cloud.end(life)
        return 204, None

    # Sending.

    def _send(self, status: int, words: dict[str, Any] | None, kind: str = "application/json",
              more: dict[str, str] | None = None) -> None:
        self._send_raw(status, b"" if words is None else json.dumps(words).encode(), kind, more)

    def _send_raw(self, status: int, data: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            if data:
                self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self._limits(more or {})
            self.end_headers()
            self.wfile.write(data)

    def _limits(self, more: dict[str, str]) -> None:
        self.send_header("RateLimit", '"minute";r=59;t=60, "hour";r=2999;t=3600, "day";r=49999;t=86400')
        self.send_header("RateLimit-Policy", '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400')
        self.send_header("x-request-id", secrets.token_hex(8))
        for name, value in more.items():
            self.send_header(name, value)

    def _stream(self, life: Life, query: dict[str, str]) -> None:
        """Server-sent events until either side goes; RunPod's stream never ends by itself."""
        cloud, stop = self.server.owner.cloud, self.server.owner.stop
        tail = int(query["tail"]) if query.get("tail", "").isdigit() else 100
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"),
                            ("Connection", "close"), ("X-Accel-Buffering", "no")):
            self.send_header(name, value)
        self._limits({})
        self.end_headers()
        self.close_connection = True
        end = b"\r\n" if cloud.due("log_crlf") else b"\n"
        twice, most = cloud.due("log_duplicate"), 3 if cloud.due("log_drop") else 1 << 60
        sent = 0
        with suppress(OSError):
            if cloud.due("log_huge"):
                self.wfile.write(b"data: " + b"x" * 5_000_000 + end + end)
            for row in cloud.lines(life, query.get("source", ""), min(tail, 5000),
                                   self.headers.get("Last-Event-ID", ""), stop):
                if row is None:
                    self.wfile.write(b":" + end)  # finds out that the other side has gone
                    continue
                words = json.dumps({"source": row.source, "line": row.text, "ts": row.ts}).encode()
                self.wfile.write((b"id: " + row.id.encode() + end + b"data: " + words + end + end) * (1 + twice))
                sent += 1
                if sent >= most:
                    return


class _HungUp(Exception):
    """The connection ends without a reply."""


_TITLES = {400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
           405: "Method Not Allowed", 409: "Conflict", 413: "Payload Too Large", 422: "Unprocessable Entity",
           429: "Too Many Requests", 500: "Internal Server Error"}


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(422, "Request validation failed.", ["$: not a JSON object"])
    return found

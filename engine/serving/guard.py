"""The door of the server: what a request must be before any of our code sees it.

A web page of somebody else, opened in the browser on this machine, can reach a server on loopback; a name that it
resolves to 127.0.0.1 can even make it look like the same origin. So the Host must be an address or a known name, an
Origin must be our own, bodies are JSON, small, and read whole within a time, and a token is asked for where one is set.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.serving.errors import ApiError, Busy, error_response

MAX_BODY = 512 << 10        # bytes: 32,000 characters as \u escapes, and as much again for what is around them
MAX_BODIES = 16 << 20       # bytes of all bodies being read
BODY_S, SEND_S = 15.0, 30.0  # a body must be complete, and a piece of the answer taken, within this time

_OPEN = ("/", "/logo.svg", "/health")  # need no token: the page itself, which then asks for it
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Gone(Exception):
    """The client left, or does not take what is sent."""


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, token: str | None, names: Iterable[str] = ()) -> None:
        self._app, self._token = app, token
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names if name)}
        self._reading = 0  # bytes of bodies held at the moment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send) if scope["type"] == "lifespan" else None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = _hardened(send)
        held = 0
        try:
            self._check(scope, headers)
            if scope["method"] == "POST":
                body = await self._body(headers, receive)
                held = len(body)
                receive = _replayed(body, receive)
            await self._app(scope, receive, send)
        except ApiError as error:
            response = error_response(scope["path"], error)
            response.headers["connection"] = "close"  # what else the client sends is not read
            await response(scope, receive, send)
        except Gone:
            return None
        finally:
            self._reading -= held
        return None

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises ApiError for a request that may not come in."""
        host = headers.get("host", "")
        if not self._known(host):
            raise ApiError(400, "this server is not known by that name; start it with --allow-host to add one",
                           code="invalid_host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise ApiError(403, "requests from another site's pages are refused", code="foreign_origin")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/":
            raise ApiError(403, "requests from another site's pages are refused", code="foreign_origin")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "send JSON, with Content-Type: application/json", code="content_type")
        if self._token is not None and scope["path"] not in _OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                raise ApiError(401, "this server needs its token: Authorization: Bearer ...", code="invalid_api_key")

    def _known(self, host: str) -> bool:
        """Whether a Host header cannot be the trick of a foreign name that leads here: addresses have no resolver."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body. Raises ApiError when it is too large, too slow, or too many are being read."""
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > MAX_BODY:
            raise _too_large()
        body = bytearray()
        try:
            async with _deadline(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    if self._reading + len(chunk) > MAX_BODIES:
                        raise Busy("too many requests at once", 5, 503)
                    body += chunk
                    self._reading += len(chunk)
                    if len(body) > MAX_BODY:
                        raise _too_large()
                    if not message.get("more_body"):
                        return bytes(body)
        except asyncio.TimeoutError:
            self._reading -= len(body)
            raise ApiError(408, f"the body did not come within {BODY_S:.0f} s", code="timeout") from None
        except BaseException:
            self._reading -= len(body)
            raise


class _deadline:
    """Raise TimeoutError in the block after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._passed = seconds, False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._passed = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._handle.cancel()
        if self._passed and kind is asyncio.CancelledError:
            raise asyncio.TimeoutError


def _too_large() -> ApiError:
    return ApiError(413, f"the body is larger than {MAX_BODY >> 10} KiB", code="too_large")


def _hardened(send: Send) -> Send:
    """`send` with our headers, which gives up on a client that does not take what it asked for."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        try:
            await asyncio.wait_for(send(message), SEND_S)
        except asyncio.TimeoutError:
            raise Gone from None

    return sending


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what else comes: the client's leaving."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay

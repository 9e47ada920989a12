"""How the Hub is asked: in bounded time, again when it is busy, and telling the token to nobody else.

Plain requests with time limits of our own, because an upload that can hang for ever proves nothing. What is retried is
told to `on_wait` in words. A Hub that is asked with encryption may not lead anywhere without it. What the requests mean
is the business of `remote.backup.hub_wire`.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from remote.errors import HubUnreachable, NoSuchCopy, TokenRefused

RETRIED = (408, 429, 500, 502, 503, 504)
OnWait = Callable[[str], None]
_MAX_REDIRECTS = 5
_SHAPES = (KeyError, IndexError, TypeError, ValueError, AttributeError)


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


@contextmanager
def as_expected(what: str) -> Iterator[None]:
    """An answer of another shape, such as a login page's, is no answer of the Hub. Raises HubUnreachable."""
    try:
        yield
    except _SHAPES as error:
        raise HubUnreachable(f"the Hub answered {what} with something else: {type(error).__name__}") from error


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


class HubHttp:
    """Requests to one Hub and the storage that it leads to. Safe to use from several threads.

    `attempts` counts the first one; `timeout` and `pause`, before the second one, are seconds.
    """

    def __init__(self, name: str, token: str | None, *, endpoint: str | None = None, timeout: float = 60.0,
                 attempts: int = 5, pause: float = 1.0, stop: threading.Event | None = None,
                 on_wait: OnWait | None = None) -> None:
        self.endpoint = (endpoint or default_endpoint()).rstrip("/")
        self.timeout, self.attempts, self.pause = timeout, attempts, pause
        self.stop, self.on_wait = stop or threading.Event(), on_wait or (lambda note: None)
        self._name, self._token = name, token
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(timeout, 20.0)), limits=limits,
                                  follow_redirects=False, verify=_certificates())

    def close(self) -> None:
        self._http.close()

    def is_own(self, url: str) -> bool:
        """Whether a URL is the Hub's own, so that it may be told the token."""
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        return (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)

    def led_to(self, url: str) -> str:
        """A URL that an answer names. Raises Refused for one without encryption where the Hub itself has it."""
        if urlsplit(self.endpoint).scheme == "https" and urlsplit(url).scheme != "https":
            raise Refused(f"the Hub leads to {urlsplit(url).hostname} without encryption")
        return url

    @contextmanager
    def stream(self, url: str, begin: int = 0, end: int | None = None) -> Iterator[httpx.Response]:
        """One GET, bytes `begin` to `end` (exclusive) where given; not retried.

        Raises TryAgain, and httpx errors as they are.
        """
        headers = {"Accept-Encoding": "identity", **self.auth(url)}
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
        with self._http.stream("GET", url, headers=headers) as reply:
            if reply.status_code not in (200, 206):
                reply.read()
                self.raise_for(reply)
            yield reply

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

    def retrying(self, ask: Callable[[], Any]) -> Any:
        number = 1
        while True:
            try:
                return ask()
            except httpx.TransportError as error:
                self.wait(number, f"no answer from the Hub ({words_of(error)})")
            except TryAgain as again:
                self.wait(number, str(again), again.retry_after)
            number += 1

    def send(self, method: str, url: str, *, accept: Sequence[int] = (), **request: Any) -> httpx.Response:
        headers = {**request.pop("headers", {}), **self.auth(url)}

        def ask() -> httpx.Response:
            reply = self._http.request(method, url, headers=headers, **request)
            if reply.is_error and reply.status_code not in accept:
                self.raise_for(reply)
            return reply

        return self.retrying(ask)

    def follow(self, method: str, url: str) -> httpx.Response:
        """A request whose redirects are followed within the Hub and reported when they lead elsewhere."""
        for _ in range(_MAX_REDIRECTS):
            reply = self.send(method, url, headers={"Accept-Encoding": "identity"})
            target = urljoin(url, reply.headers.get("Location", ""))
            if not reply.is_redirect or not self.is_own(target) or "X-Linked-Etag" in reply.headers:
                return reply
            url = target
        raise HubUnreachable("the Hub redirects for ever")

    def json(self, method: str, url: str, **request: Any) -> Any:
        reply = self.send(method, url, **request)
        try:
            return reply.json()
        except ValueError as error:
            raise HubUnreachable(f"the Hub answered {urlsplit(url).path} with something that is no JSON") from error

    def raise_for(self, reply: httpx.Response) -> None:
        status = reply.status_code
        if status in RETRIED:
            raise TryAgain(f"{status} from the Hub", _pause_asked(reply))
        if status == 401:
            raise TokenRefused(f"the Hub does not know the token, or there is no {self._name}: {told_by(reply)}")
        if status == 403 and self.is_own(str(reply.request.url)):
            raise TokenRefused(f"the token may not do this with {self._name}: {told_by(reply)}")
        if status == 404:
            raise NoSuchCopy(f"not there: {self._name} ({told_by(reply)})")
        raise Refused(f"the Hub refused: {told_by(reply)}")

    def auth(self, url: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token and self.is_own(url) else {}

    def own(self, url: str) -> str:
        if not self.is_own(url):
            raise HubUnreachable("the Hub's listing goes on at another origin")
        return url


def words_of(error: Exception) -> str:
    return "it stalled" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__


def told_by(reply: httpx.Response) -> str:
    """The server's own words, on one line and short."""
    text = reply.headers.get("X-Error-Message") or reply.text
    return f"{reply.status_code} {' '.join(text.split())[:200]}".strip()

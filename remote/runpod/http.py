"""HTTP with RunPod: what is sent again and what never, how long to wait, each refusal as the sentence a person needs.

Reads and deletes are repeated for a while; a create is sent once, unless the reply proves that it was not looked at.
It knows no pods: paths and bodies come from `remote.runpod.client`.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from remote.errors import (
    AccessRefused,
    BadRequest,
    BalanceExhausted,
    Cancelled,
    CreateUnknown,
    CredentialRefused,
    EdgeRefused,
    NoCapacity,
    NoSuchPod,
    NotAllowedNow,
    ProviderDown,
    ProviderError,
    RateLimited,
)
from remote.secret_text import Secret, redactor

BASE = "https://api.runpod.io/v2"
BILLING_PAGE = "https://console.runpod.io/user/billing"
KEYS_PAGE = "https://console.runpod.io/user/settings"
_FULL = re.compile(r"no longer any instances|no instances|capacity|not enough free|zero gpu|no gpus? available"
                   r"|could not find .*machine|resources? .*unavailable", re.IGNORECASE)
_DISK = re.compile(r"disk space", re.IGNORECASE)
_CREATE_TIMEOUT = 120.0
_CLOCKS_AGREE_S = 5.0  # a reply's date has whole seconds, and travelled
_LONGEST_DETAIL = 600  # characters of foreign text in one of our sentences


class Api:
    """One account's door. `patience` is how long, in seconds, reads are tried again before they raise."""

    def __init__(self, key: Secret, *, base: str = BASE, agent: str = "llmconsole", patience: float = 30.0,
                 stop: threading.Event | None = None) -> None:
        self._patience = patience
        self._stop = stop or threading.Event()
        self.client = httpx.Client(base_url=base.rstrip("/"), timeout=httpx.Timeout(30.0, connect=10.0),
                                   headers={"Authorization": f"Bearer {key.reveal()}", "User-Agent": agent},
                                   limits=httpx.Limits(max_connections=16),
                                   event_hooks={"response": [self._hear_clock]})
        self._ahead: float | None = None  # seconds that their clock is before ours; None: not heard yet

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The JSON object in the reply. Raises NoSuchPod for 404."""
        return self._json(self._patiently("GET", path, query))

    def delete(self, path: str) -> None:
        self._patiently("DELETE", path, {})

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sent once; again only after 429, which says that nobody looked at it."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                reply = self.client.post(path, json=body, timeout=httpx.Timeout(_CREATE_TIMEOUT, connect=10.0))
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                raise ProviderDown(f"RunPod does not answer ({_why(error)}); nothing was created") from None
            except httpx.HTTPError as error:
                raise CreateUnknown("the reply to the create was lost "
                                    f"({_why(error)}): a pod may exist and bill; looking it up by its name") from None
            if reply.status_code == 429 and self._wait(wait_of(reply.headers), deadline):
                continue
            return self._created(reply)

    def clock(self) -> float:
        """Their wall time, from the date of their replies; ours where both agree or they tell none."""
        if self._ahead is None:
            with suppress(httpx.HTTPError, RuntimeError):
                self.client.head("/openapi.json", timeout=10.0)
        return time.time() + (self._ahead or 0.0)

    def _hear_clock(self, reply: httpx.Response) -> None:
        with suppress(ValueError):
            ahead = parsedate_to_datetime(reply.headers.get("date", "")).timestamp() - time.time()
            self._ahead = ahead if abs(ahead) > _CLOCKS_AGREE_S else 0.0

    def close(self) -> None:
        self._stop.set()
        self.client.close()

    def _created(self, reply: httpx.Response) -> dict[str, Any]:
        if reply.status_code >= 500 or 300 <= reply.status_code < 400:
            raise CreateUnknown(f"RunPod answered the create with {reply.status_code}: a pod may exist and bill all "
                                "the same; looking it up by its name", status=reply.status_code, detail=_detail(reply))
        if reply.status_code >= 400:
            raise refusal(reply)
        try:
            return self._json(reply)
        except ProviderDown as error:
            raise CreateUnknown("RunPod accepted the create but its answer cannot be read; looking the pod up by its "
                                "name", status=reply.status_code, detail=error.detail) from None

    def _patiently(self, method: str, path: str, query: Mapping[str, Any]) -> httpx.Response:
        deadline, tries = time.monotonic() + self._patience, 0
        while True:
            error: ProviderError
            pause = min(0.5 * 2 ** tries, 8.0) * random.uniform(0.75, 1.25)
            try:
                reply = self.client.request(method, path, params=dict(query))
                if reply.status_code < 300:
                    return reply
                error = refusal(reply)
                if isinstance(error, RateLimited):
                    pause = error.wait_s
            except httpx.HTTPError as found:
                error = ProviderDown(f"RunPod does not answer: {_why(found)}")
            except RuntimeError:  # the client was closed under us
                raise Cancelled("the connection to RunPod was closed here") from None
            if not isinstance(error, (RateLimited, ProviderDown)) or not self._wait(pause, deadline):
                raise error
            tries += 1

    def _wait(self, pause: float, deadline: float) -> bool:
        """Wait, if that leads anywhere before the deadline."""
        if time.monotonic() + pause > deadline:
            return False
        if self._stop.wait(pause):
            raise Cancelled("the connection to RunPod was closed here")
        return True

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        try:
            found = reply.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderDown(f"RunPod's answer is not what its documentation says: {_detail(reply)[:120]}",
                               status=reply.status_code, detail=_detail(reply))
        return found


def wait_of(headers: Mapping[str, str]) -> float:
    """Seconds to wait after 429: the largest of Retry-After and of the windows that are used up."""
    waits = [float(headers["retry-after"])] if headers.get("retry-after", "").isdigit() else []
    for window in headers.get("ratelimit", "").split(","):
        left, until = re.search(r"r=(\d+)", window), re.search(r"t=(\d+)", window)
        if left and until and int(left[1]) == 0:
            waits.append(float(until[1]))
    return max(waits, default=5.0)


def refusal(reply: httpx.Response) -> ProviderError:
    """The error that a reply means."""
    if reply.status_code == 403 and ("problem+json" not in reply.headers.get("content-type", "")
                                     and ("1010" in reply.text or "cloudflare" in reply.text.lower())):
        return EdgeRefused("a web firewall in front of RunPod refused this program (403, code 1010), not RunPod "
                           "itself: try another network or wait some minutes", status=403, detail=_detail(reply))
    return error_for(reply.status_code, _detail(reply), wait_of(reply.headers))


def error_for(status: int, detail: str, wait_s: float = 5.0) -> ProviderError:
    """The error for a status and RunPod's own words. Pure."""
    said = f" (RunPod: {detail})" if detail else ""
    make: type[ProviderError]
    if status == 429:
        return RateLimited(f"RunPod asks to wait {wait_s:.0f} s: too many requests with this key", wait_s,
                           detail=detail)
    if status == 400 and _FULL.search(detail):
        make, text = NoCapacity, "no such pod is free there now: the next offer is tried, then waited for" + said
    elif status == 400 and _DISK.search(detail):
        make, text = NoCapacity, "no host there has so much disk free: ask for a smaller disk or another place" + said
    elif status in (400, 413, 422):
        make, text = BadRequest, f"RunPod refuses this request ({status}) and would again: {detail or 'no reason'}"
    elif status == 401:
        make, text = CredentialRefused, f"RunPod does not know this API key: make another at {KEYS_PAGE}" + said
    elif status == 402:
        make, text = BalanceExhausted, ("the RunPod balance or spending limit does not allow this; a create needs one "
                                        f"hour's price: {BILLING_PAGE}{said}")
    elif status == 403:
        make, text = AccessRefused, "this API key or account may not do that: check the key's scope" + said
    elif status == 404:
        make, text = NoSuchPod, "RunPod knows no such pod" + said
    elif status == 409:
        make, text = NotAllowedNow, "the pod is not in a state that allows this: it is read again" + said
    else:
        make, text = ProviderDown, f"RunPod has trouble of its own ({status}): asked again later{said}"
    return make(text, status=status, detail=detail)


def _detail(reply: httpx.Response) -> str:
    """RunPod's own words, with each violation that it lists; an HTML page without its tags."""
    try:
        found = reply.json()
        parts = [found.get("detail") or found.get("message") or found.get("error") or found.get("title") or "",
                 *(found.get("errors") or [])]
        text = "; ".join(str(part) for part in parts if part)
    except (ValueError, AttributeError):
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", reply.text, flags=re.DOTALL)
    return redactor(" ".join(text.split()))[:_LONGEST_DETAIL]


def _why(error: httpx.HTTPError) -> str:
    return redactor(str(error)) or type(error).__name__

"""A Hub that is no Hub, or leads astray: a sentence and a kind of error, never a guess and never a secret told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from remote.backup.hub_http import Refused
from remote.backup.hub_wire import HubWire, Uncertain
from remote.errors import CopyRefused, HubUnreachable

COMMIT = [{"key": "header", "value": {"summary": "x"}}]


def wire(answer: Callable[[httpx.Request], httpx.Response]) -> HubWire:
    made = HubWire("me/run7", "secret-token", endpoint="https://hub.example", attempts=1, pause=0.0)
    made._http = httpx.Client(transport=httpx.MockTransport(answer))
    return made


@pytest.mark.parametrize("body", ["<html>log in</html>", "[]", "{}", '{"files": 5, "objects": []}', "null",
                                  '[{"type": "file"}]', '{"objects": [{"actions": {"upload": {}}}]}', "17"])
@pytest.mark.parametrize("ask", [lambda w: w.whoami(), lambda w: w.head_commit(),
                                 lambda w: w.upload_modes([("a", 1, b"")]), lambda w: w.upload_actions("0" * 64, 5)])
def test_a_login_page_is_no_answer(body: str, ask: Callable[[HubWire], Any]) -> None:
    with pytest.raises(HubUnreachable):
        ask(wire(lambda request: httpx.Response(200, text=body)))


@pytest.mark.parametrize("body", ["<html>log in</html>", "17", "null", '["x"]', '[{"type": "file"}]',
                                  '[{"type": "file", "path": "a", "size": "b"}]'])
def test_a_listing_that_is_none_is_not_an_empty_one(body: str) -> None:
    with pytest.raises(HubUnreachable):
        wire(lambda request: httpx.Response(200, text=body)).tree("main")


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", "null"])
def test_a_commit_whose_answer_makes_no_sense_may_have_landed(body: str) -> None:
    with pytest.raises(Uncertain):
        wire(lambda request: httpx.Response(200, text=body)).commit(COMMIT, "0" * 40)


def test_nothing_goes_where_there_is_no_encryption() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.method == "HEAD":
            return httpx.Response(302, headers={"Location": "http://169.254.169.254/x", "X-Linked-Etag": "0" * 64})
        header = {"chunk_size": "5", "1": "https://storage.example/1", "2": "http://storage.example/2"}
        actions = {"upload": {"href": "https://storage.example/done", "header": header}}
        return httpx.Response(200, text=json.dumps({"objects": [{"actions": actions}]}))

    for ask in (lambda w: w.file_url("main", "model.pt"), lambda w: w.upload_actions("0" * 64, 10)):
        with pytest.raises(Refused, match="without encryption"):
            ask(wire(answer))
    assert {request.url.host for request in seen} == {"hub.example"}


@pytest.mark.parametrize("repo", ["", "me", "a/b/c", "../x", "me/..", "me/x?y=1", "me/x#y", "me/x y", "https://h/x"])
def test_a_name_that_no_repository_has_is_refused_before_any_request(repo: str) -> None:
    with pytest.raises(CopyRefused):
        HubWire(repo, None, endpoint="https://hub.example")

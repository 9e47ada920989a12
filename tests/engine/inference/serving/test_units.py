"""The parts below the server: stop strings, fairness, literal special tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.prompt import Prompt
from engine.inference.sampling import Sampling
from engine.inference.stream import LiteralStream
from engine.serving import guard as guard_module
from engine.serving.answers import Answer, Question
from engine.serving.fair_queue import FairQueue, QueueFull
from engine.serving.guard import Guard
from engine.serving.stop_text import StopText

QUESTION = Question(Prompt([1], 0), Sampling(), 4)
TEXT = st.text("ab<", max_size=12)


@given(st.lists(TEXT, max_size=8), st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3))
def test_stop_text_is_what_a_search_in_the_whole_gives(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    filter_, shown = StopText(stops), ""
    for piece in pieces:
        shown += filter_.push(piece)
        assert whole.startswith(shown)
    if not filter_.hit:
        shown += filter_.close()
    assert filter_.hit == any(stop in whole for stop in stops)
    if filter_.hit:
        first_end = min(whole.find(stop) + len(stop) for stop in stops if stop in whole)
        assert len(shown) < first_end and not any(stop in shown for stop in stops)
    else:
        assert shown == whole


async def test_clients_take_turns() -> None:
    queue = FairQueue(10)
    answers = [Answer(QUESTION, client) for client in "aaabbc"]
    queue.put(answers)
    order = [queue.take(wait=False) for _ in range(6)]
    assert "".join(a.client for a in order if a) == "abcaba"
    assert queue.take(wait=False) is None and len(queue) == 0


async def test_who_left_takes_no_place() -> None:
    queue = FairQueue(2)
    first, second = Answer(QUESTION, "a"), Answer(QUESTION, "a")
    queue.put([first, second])
    with pytest.raises(QueueFull):
        queue.put([Answer(QUESTION, "b")])
    first.cancel()
    third = Answer(QUESTION, "b")
    queue.put([third])
    assert [queue.take(wait=False), queue.take(wait=False)] == [second, third]
    assert queue.close() == [] and queue.take(wait=True) is None


async def test_free_rows_do_not_count_as_waiting() -> None:
    queue = FairQueue(0)
    with pytest.raises(QueueFull):
        queue.put([Answer(QUESTION, "a")])
    queue.offer_rows(1)
    queue.put([Answer(QUESTION, "a")])


def test_literal_stream_names_special_tokens(byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer()
    stream = LiteralStream(tokenizer)
    ids = [tokenizer.encode_special("<|python_start|>"), *"é".encode(), 0xC3]
    assert "".join(p.text for i in ids for p in stream.push(i)) == "<|python_start|>é"
    assert [p.text for p in stream.close()] == ["\ufffd"]


async def called(guard: Guard, messages: list[dict[str, Any]], send: Any = None) -> list[dict[str, Any]]:
    """What the guard answers to a POST whose body comes in these pieces, then never any more."""
    scope = {"type": "http", "method": "POST", "path": "/chat/completions",
             "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}
    pieces, sent = iter(messages), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        for piece in pieces:
            return piece
        await asyncio.sleep(60)
        raise AssertionError

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    await asyncio.wait_for(guard(scope, receive, send or keep), 5)
    return sent


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": (await receive())["body"]})


async def test_a_body_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "BODY_S", 0.05)
    guard = Guard(echo, None)
    sent = await called(guard, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert sent[0]["status"] == 408
    sent = await called(guard, [{"type": "http.request", "body": b"{", "more_body": True},
                                {"type": "http.request", "body": b"}"}])
    assert sent[0]["status"] == 200 and sent[1]["body"] == b"{}"
    assert await called(guard, [{"type": "http.disconnect"}]) == []
    assert guard._reading == 0


async def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "MAX_BODIES", 10)
    guard = Guard(echo, None)
    assert (await called(guard, [{"type": "http.request", "body": b"x" * 11}]))[0]["status"] == 503
    assert (await called(guard, [{"type": "http.request", "body": b"x" * 9}]))[0]["status"] == 200
    assert guard._reading == 0


async def test_who_does_not_take_the_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "SEND_S", 0.05)

    async def stuck(message: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    assert await called(Guard(echo, None), [{"type": "http.request", "body": b""}], stuck) == []


@pytest.mark.parametrize(("host", "known"), [
    ("localhost", True), ("LocalHost:8000", True), ("127.0.0.1:1", True), ("192.168.7.9:80", True), ("[::1]", True),
    ("[::1]:8000", True), ("box.lan:8000", True), ("evil.example", False), ("127.0.0.1.evil.example", False),
    ("", False), ("localhost.", False), ("127.0.0.1@evil", False)])
def test_names_of_this_server(host: str, known: bool) -> None:
    assert Guard(echo, None, ["box.lan", ""])._known(host) is known

"""Both APIs of a running server, asked by real clients: httpx for nanochat's, the openai package for OpenAI's."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

SAID = "Hi you,<b>"
HELLO = [{"role": "user", "content": "hello"}]
ENDLESS = "sft/d1@2"


@pytest.fixture
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server: Any, path: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=30, **options)


# nanochat's


def test_nanochat_streams_tokens(server: Any) -> None:
    reply = post(server, "/chat/completions", {"messages": HELLO, "temperature": 0.0, "model": "ignored"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n") if line]
    assert "".join(e["token"] for e in events[:-1]) == SAID and events[-1] == {"done": True}
    assert all(e["gpu"] == 0 for e in events[:-1])


def test_nanochat_says_how_it_is(server: Any) -> None:
    health = httpx.get(f"{server.url}/health").json()
    assert set(health) == {"status", "ready", "num_gpus", "available_workers"} and health["ready"]
    stats = httpx.get(f"{server.url}/stats").json()
    assert set(stats) == {"total_workers", "available_workers", "busy_workers", "workers"}
    assert stats["workers"][0] == {"gpu_id": 0, "device": "cpu"}
    assert httpx.get(f"{server.url}/logo.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(("change", "status", "words"), [
    ({"messages": []}, 400, "At least one message"),
    ({"messages": HELLO * 501}, 400, "Too many messages"),
    ({"messages": [{"role": "user", "content": ""}]}, 400, "empty content"),
    ({"messages": [{"role": "user", "content": "x" * 8001}]}, 400, "too long"),
    ({"messages": [{"role": "user", "content": "x" * 7000}] * 5}, 400, "32000"),
    ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, 400, "invalid role"),
    ({"messages": HELLO * 2}, 400, "take turns"),
    ({"messages": [{"role": "user", "content": "x" * 7000}]}, 400, "this model reads 256"),
    ({"temperature": 2.1}, 400, "temperature"), ({"temperature": -1}, 400, "temperature"),
    ({"top_k": 0}, 400, "top_k"), ({"top_k": 201}, 400, "top_k"), ({"max_tokens": 4097}, 400, "max_tokens"),
    ({"max_tokens": 0}, 400, "max_tokens"), ({"top_k": "many"}, 422, "top_k"), ({"messages": "hi"}, 422, "messages"),
])
def test_nanochat_limits(server: Any, change: dict[str, Any], status: int, words: str) -> None:
    reply = post(server, "/chat/completions", {"messages": HELLO, **change})
    assert reply.status_code == status and words in json.dumps(reply.json()["detail"])


# OpenAI's


def test_whole_answer(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="sft/d1@1", messages=HELLO, temperature=0)  # type: ignore[arg-type]
    assert done.choices[0].message.content == SAID and done.choices[0].finish_reason == "stop"
    assert done.usage and done.usage.completion_tokens == len(SAID) and done.usage.total_tokens > len(SAID)
    assert done.model == "sft/d1@1" and done.object == "chat.completion"


def test_streamed_answer_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="sft/d1@1", messages=HELLO, stream=True,  # type: ignore[call-overload]
                                            stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SAID
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len(SAID)
    assert chunks[0].choices[0].delta.role == "assistant"


def test_stop_length_and_several_choices(client: openai.OpenAI) -> None:
    ask = client.chat.completions.create
    stopped = ask(model="sft/d1@1", messages=HELLO, stop=["you,", "never"])  # type: ignore[arg-type]
    assert stopped.choices[0].message.content == "Hi " and stopped.choices[0].finish_reason == "stop"
    cut = ask(model="sft/d1@1", messages=HELLO, max_completion_tokens=4, n=2, seed=7)  # type: ignore[arg-type]
    assert [c.message.content for c in cut.choices] == ["Hi y"] * 2 and cut.choices[1].index == 1
    assert {c.finish_reason for c in cut.choices} == {"length"} and cut.usage and cut.usage.completion_tokens == 8


def test_streamed_choices_come_side_by_side(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="sft/d1@1", messages=HELLO, stream=True, n=2)  # type: ignore
    said = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [SAID, SAID]


def test_text_parts_and_system(client: openai.OpenAI) -> None:
    messages = [{"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    done = client.chat.completions.create(model="sft/d1@1", messages=messages)  # type: ignore[arg-type]
    assert done.choices[0].message.content == SAID


def test_models(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert set(listed) == {"sft/d1@1", ENDLESS} and client.models.retrieve(ENDLESS).owned_by == "llmconsole"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sft/d1@3")


@pytest.mark.parametrize(("change", "kind", "param"), [
    ({"model": "sft/d1@9"}, openai.NotFoundError, "model"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
    ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format"),
    ({"logprobs": True}, openai.BadRequestError, "logprobs"), ({"n": 9}, openai.BadRequestError, "n"),
    ({"temperature": -0.1}, openai.BadRequestError, "temperature"), ({"top_p": 2}, openai.BadRequestError, "top_p"),
    ({"max_tokens": 10**30}, openai.BadRequestError, "max_tokens"), ({"seed": 2**70}, openai.BadRequestError, "seed"),
    ({"stop": [""]}, openai.BadRequestError, "stop"), ({"messages": []}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": "  "}]}, openai.BadRequestError, "messages[0].content"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, openai.BadRequestError, "messages[1].role"),
    ({"messages": HELLO * 2}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 64_001}]}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 900}]}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     openai.BadRequestError, "messages[0].content"),
])
def test_refusals_in_openai_shape(client: openai.OpenAI, change: dict[str, Any], kind: type[openai.APIStatusError],
                                  param: str) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "sft/d1@1", "messages": HELLO, **change})
    body = caught.value.body
    assert isinstance(body, dict) and body["param"] == param and body["message"] and "Traceback" not in str(body)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"[" * 100_000, b'{"messages": NaN}', b"\xff\xfe",
                                  b'{"messages":[{"role":"user","content":"\\ud800"}],"max_tokens":1e400}'])
def test_broken_json(server: Any, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/chat/completions"):
        reply = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 422) and reply.json() and "Traceback" not in reply.text


def test_half_a_character_is_answered(server: Any) -> None:
    body = b'{"messages":[{"role":"user","content":"\\ud83d"}],"max_tokens":2}'
    reply = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200


# many at once


def until(holds: Any, seconds: float = 10) -> float:
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds
        time.sleep(0.01)
    return time.monotonic() - begin


def endless(client: openai.OpenAI) -> Any:
    return client.chat.completions.create(model=ENDLESS, messages=HELLO, max_tokens=4096, stream=True)  # type: ignore


def test_a_reader_who_leaves_frees_the_row(server: Any, client: openai.OpenAI) -> None:
    stream = endless(client)
    held = iter(stream)
    next(held)
    assert not server.idle()
    stream.close()
    until(lambda: server.idle(), 2)


def test_so_does_one_who_waits_for_the_whole(server: Any) -> None:
    body = {"model": ENDLESS, "messages": HELLO, "max_tokens": 4096}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.3)
    until(lambda: server.idle(), 1)


def test_concurrent_answers_share_the_batch_and_the_queue_is_bounded(server: Any, client: openai.OpenAI) -> None:
    streams = [endless(client), endless(client)]  # two rows
    held = [iter(stream) for stream in streams]  # one that is collected closes its stream
    assert all(next(one) for one in held)
    body = {"model": ENDLESS, "messages": HELLO, "max_tokens": 2}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(post, server, "/v1/chat/completions", body) for _ in range(4)]
        until(lambda: sum(one.done() for one in asked) == 2)  # two may wait, the others are told to come back
        refused = [one.result() for one in asked if one.done()]
        assert all(r.status_code == 429 and int(r.headers["retry-after"]) >= 1 for r in refused)
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        for stream in streams:
            stream.close()
        answered = [r for r in (one.result() for one in asked) if r.status_code == 200]
    assert [r.json()["choices"][0]["message"]["content"] for r in answered] == ["~~", "~~"]
    until(lambda: server.idle(), 2)


def test_the_same_seed_gives_the_same_answer_whatever_runs_beside(server: Any, client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        done = client.chat.completions.create(model="sft/d1@1", messages=HELLO, temperature=2, seed=seed,
                                              max_tokens=40, extra_body={"top_k": 0})  # type: ignore[arg-type]
        return done.choices[0].message.content or ""

    alone = ask(3)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(ask, (3, 4)))
    assert together[0] == alone

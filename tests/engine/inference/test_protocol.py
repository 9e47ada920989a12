"""Requests of the chat worker, good and bad, and its reading of lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference import protocol
from engine.inference.protocol import BadRequest, Generate, Load, Quit, Stop, Unload, parse, read_lines


def request(**fields: Any) -> Any:
    return parse(json.dumps(fields).encode())


def test_requests_and_their_defaults() -> None:
    load = Load(Path("/m"), 3, Path("/t"), "auto", "auto", None)
    assert request(op="load", path="/m", step=3, tokenizer="/t") == load
    message = {"role": "user", "content": "hi"}
    assert request(op="generate", id="g", messages=[message]) == Generate("g", (message,), 0.8, 50, 1.0, None, 512)
    assert request(op="generate", id="g", messages=[message], temperature=0, top_k=None, top_p=0.5, seed=7,
                   max_tokens=3) == Generate("g", (message,), 0, 50, 0.5, 7, 3)
    assert request(op="stop", id="g") == Stop("g") and request(op="stop") == Stop(None)
    assert request(op="unload") == Unload() and request(op="quit") == Quit()


@pytest.mark.parametrize(("line", "says"), [
    (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[" * 100_000, "not JSON"),
    (b"[]", "not a JSON object"), (b"{}", "unknown op"),
    (b'{"op":"genrate","id":"g"}', "did you mean generate"), (b'{"op":["x"]}', "unknown op"),
    (b'{"op":"load","path":"/m","tokenizer":"/t"}', "step"),
    (b'{"op":"load","path":"/m","step":-1,"tokenizer":"/t"}', "step"),
    (b'{"op":"load","path":"","step":1,"tokenizer":"/t"}', "path"),
    (b'{"op":"load","path":"a\\u0000b","step":1,"tokenizer":"/t"}', "path"),
    (b'{"op":"load","path":"/m","step":1,"tokenizer":"/t","device":"tpu"}', "not one of auto"),
    (b'{"op":"generate","messages":[]}', "id"), (b'{"op":"generate","id":5,"messages":[]}', "id"),
    (b'{"op":"generate","id":"g","messages":"hi"}', "messages"),
    (b'{"op":"generate","id":"g","messages":["hi"]}', "messages"),
])
def test_bad_requests_say_why(line: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parse(line)


@pytest.mark.parametrize(("field", "value"), [
    ("temperature", -1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "hot"),
    ("temperature", True), ("top_k", 1.5), ("top_k", -1), ("top_p", 1.1), ("max_tokens", 0), ("seed", -1),
    ("seed", 2**63),
])
def test_bad_settings_name_the_field_and_the_request(field: str, value: Any) -> None:
    with pytest.raises(BadRequest, match=f"{field}: expected a ") as caught:
        request(op="generate", id="g7", messages=[], **{field: value})
    assert caught.value.id == "g7"


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["op", "id", "messages", "path", "step", "seed", "top_k"]), inner, max_size=4)))
def test_any_json_is_a_request_or_refused(value: Any) -> None:
    if isinstance(value, dict):
        value["op"] = value.get("op") if isinstance(value.get("op"), dict) else "generate"
    try:
        parse(json.dumps(value).encode())
    except BadRequest as error:
        assert str(error)


def test_lines_come_whole_and_a_torn_last_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_LINE", 100)

    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(7)

    data = b"one\n\n" + b"x" * 500 + b"\ntwo\n" + b"y" * 90 + b"\nthree"
    assert list(read_lines(Trickle(data))) == [b"one", b"", None, b"two", b"y" * 90]

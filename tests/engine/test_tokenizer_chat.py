"""Conversations become nanochat's tokens and masks; what is not a conversation is refused with a reason."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import (
    ConversationError,
    render_conversation,
    render_for_completion,
    visualize_tokenization,
)

FOLDER = Path(__file__).parents[1] / "fixtures" / "tokenizer"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "conversations.json").read_bytes())["cases"]
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.from_directory(FOLDER)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_equals_nanochat(tok: Tokenizer, case: dict[str, Any]) -> None:
    messages = case["conversation"]["messages"]
    before = copy.deepcopy(messages)
    assert render_conversation(tok, messages) == (case["ids"], case["mask"])
    assert render_conversation(tok, messages, max_tokens=33) == (case["ids_max33"], case["mask_max33"])
    assert render_for_completion(tok, messages) == case["completion_ids"]
    assert render_for_completion(tok, messages[:-1]) == case["completion_ids"]
    assert messages == before


parts = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "python", "python_output"]),
                                        "text": st.text(max_size=12)}), max_size=4)
turns = st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20) | parts), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(turns=turns)
def test_masked_tokens_are_what_the_assistant_says(tok: Tokenizer, turns: list[tuple[str, Any]]) -> None:
    messages = [m for user, answer in turns
                for m in ({"role": "user", "content": user}, {"role": "assistant", "content": answer})]
    ids, mask = render_conversation(tok, messages, max_tokens=10**6)
    assert len(ids) == len(mask)
    said = "".join(_said(answer) + "<|assistant_end|>" for _, answer in turns)
    assert tok.decode([i for i, m in zip(ids, mask, strict=True) if m]) == said
    heard = "".join(f"<|user_start|>{user}<|user_end|><|assistant_start|>{_heard(answer)}" for user, answer in turns)
    assert tok.decode([i for i, m in zip(ids, mask, strict=True) if not m]) == "<|bos|>" + heard


def _said(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    shape = {"text": "{}", "python": "<|python_start|>{}<|python_end|>", "python_output": ""}
    return "".join(shape[p["type"]].format(p["text"]) for p in answer)


def _heard(answer: Any) -> str:
    outputs = [p["text"] for p in answer if p["type"] == "python_output"] if not isinstance(answer, str) else []
    return "".join(f"<|output_start|>{text}<|output_end|>" for text in outputs)


@pytest.mark.parametrize(("messages", "words"), [
    ([], "at least one message"),
    ([ASSISTANT], "message 0 is from 'assistant'"),
    ([USER, USER], "message 1 is from 'user'.*so assistant"),
    ([USER, ASSISTANT, ASSISTANT], "message 2"),
    ([{"role": "system", "content": "x"}], "followed by a user"),
    ([{"role": "system", "content": "x"}, ASSISTANT], "followed by a user"),
    ([USER, {"role": "system", "content": "x"}], "message 1 is from 'system'"),
    ([{"content": "x"}], "message 0 is from None"),
    ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "message 0: expected text, not list"),
    ([{"role": "user"}], "expected text, not NoneType"),
    ([USER, {"role": "assistant", "content": 5}], "a text or a list of parts"),
    ([USER, {"role": "assistant", "content": [{"type": "image", "text": "x"}]}], "unknown part 'image'"),
    ([USER, {"role": "assistant", "content": ["x"]}], "unknown part None"),
    ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "message 1: expected text"),
])
def test_refuses_what_is_no_conversation(tok: Tokenizer, messages: list[Any], words: str) -> None:
    with pytest.raises(ConversationError, match=words):
        render_conversation(tok, messages)


@pytest.mark.parametrize("messages", [[], [ASSISTANT], [{"role": "system", "content": "x"}]])
def test_completion_needs_a_question(tok: Tokenizer, messages: list[Any]) -> None:
    with pytest.raises(ConversationError, match="no user's message"):
        render_for_completion(tok, messages)


def test_a_long_prompt_is_cut_and_still_asks_for_an_answer(tok: Tokenizer) -> None:
    ids = render_for_completion(tok, [{"role": "user", "content": "long " * 500}], max_tokens=40)
    assert len(ids) == 41
    assert ids[-1] == tok.encode_special("<|assistant_start|>")


def test_visualization_shows_tokens_in_two_colours_and_no_control_character(tok: Tokenizer) -> None:
    ids, mask = render_conversation(tok, [{"role": "user", "content": "a\n\x1b[31m"}, ASSISTANT])
    shown = visualize_tokenization(tok, ids, mask, with_token_id=True)
    assert "\033[91m<|bos|>\033[0m\033[90m(1015)\033[0m|" in shown
    assert "\033[92m<|assistant_end|>\033[0m" in shown
    assert r"\n" in shown and r"\x1b" in shown and "\n" not in shown
    plain = re.sub(r"\033\[9[012]m|\033\[0m", "", visualize_tokenization(tok, ids, mask))
    assert "\033" not in plain
    assert len(plain.split("|<|")[0]) == len("<|bos|>")

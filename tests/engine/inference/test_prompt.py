"""Fitting a conversation into the context."""

from __future__ import annotations

import pytest

from engine.inference.prompt import ContextFull, fit_prompt
from engine.tokenizer.chat_format import ConversationError, render_for_completion


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_what_fits_is_rendered_as_it_is(byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    messages = [{"role": "system", "content": "be kind"}, user("hello"), assistant("hi"), user("and now?")]
    prompt = fit_prompt(tokenizer, messages, 256, 64)
    assert prompt.ids == render_for_completion(tokenizer, messages) and prompt.dropped_turns == 0


def test_the_oldest_turns_go_and_the_system_text_stays(byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    system = {"role": "system", "content": "be kind"}
    turns = [m for i in range(10) for m in (user(f"question {i}"), assistant(f"answer {i}"))] + [user("last")]
    prompt = fit_prompt(tokenizer, [system, *turns], 128, 1000)
    kept = turns[prompt.dropped_turns :]
    assert prompt.ids == render_for_completion(tokenizer, [system, *kept])
    assert prompt.dropped_turns % 2 == 0 and 0 < len(kept) < len(turns)
    assert len(prompt.ids) <= 128 - 32, "a quarter of the context is left for the answer"
    one_more = render_for_completion(tokenizer, [system, *turns[prompt.dropped_turns - 2 :]])
    assert len(one_more) > 128 - 32, "and no turn was dropped that had room"


def test_a_small_answer_reserves_less(byte_tokenizer) -> None:
    messages = [user("a" * 20), assistant("b" * 20), user("c" * 20)]  # 70 tokens
    assert fit_prompt(byte_tokenizer(), messages, 80, 4).dropped_turns == 0
    assert fit_prompt(byte_tokenizer(), messages, 80, 40).dropped_turns == 2


def test_the_last_question_may_use_the_whole_context(byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    assert len(fit_prompt(tokenizer, [user("x" * 59)], 64, 100).ids) == 63
    with pytest.raises(ContextFull, match="takes 64 tokens, and this model reads 64") as caught:
        fit_prompt(tokenizer, [user("old"), assistant("old"), user("x" * 60)], 64, 100)
    assert caught.value.code == "context" and caught.value.next


@pytest.mark.parametrize("messages", [
    [], [{}], [{"role": "user"}], [user("a"), user("b")], [assistant("a")], [{"role": "system", "content": "a"}],
    [{"role": "tool", "content": "a"}], [{"role": "user", "content": 5}],
    [user("a"), {"role": "assistant", "content": [{"type": "image", "text": "x"}]}, user("b")],
    [user("a"), {"role": "assistant", "content": None}, user("b")],
])
def test_what_is_no_conversation_is_refused(byte_tokenizer, messages: list[dict[str, object]]) -> None:
    with pytest.raises(ConversationError):
        fit_prompt(byte_tokenizer(), messages, 64, 10)

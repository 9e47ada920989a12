"""Fits a conversation into the model's context: the oldest turns go, the system text and the last question stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.context import StageError
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion

Message = Mapping[str, Any]  # {"role": "system" | "user" | "assistant", "content": text or parts}

_NO_LIMIT = 1 << 60


class BadMessages(StageError):
    """The conversation is not one that the chat format can write."""


class ContextFull(StageError):
    """The last question alone is longer than what the model can read."""


@dataclass(frozen=True)
class Prompt:
    """Token ids that end where the assistant begins to speak, and how many messages had to be left out."""

    ids: list[int]
    dropped_turns: int


def fit_prompt(tokenizer: Tokenizer, messages: Sequence[Message], context: int, max_tokens: int) -> Prompt:
    """Render `messages` so that an answer has room. Raises BadMessages or ContextFull.

    Turns are dropped from the oldest on, a question and its answer at a time, until `max_tokens` fit behind the
    prompt, or a quarter of the context where that is less. The last question may use that room up to the last token.
    """
    check_messages(messages)
    system = list(messages[:1]) if messages[0]["role"] == "system" else []
    turns = list(messages[len(system) :])
    room, dropped = min(max_tokens, context // 4), 0
    while True:
        ids = render_for_completion(tokenizer, [*system, *turns], max_tokens=_NO_LIMIT)
        if len(ids) + room <= context:
            return Prompt(ids, dropped)
        if len(turns) == 1:
            break
        turns, dropped = turns[2:], dropped + 2
    if len(ids) >= context:
        raise ContextFull(f"the message takes {len(ids):,} tokens and this model reads {context:,}",
                          "shorten the message", "context")
    return Prompt(ids, dropped)


def check_messages(messages: Sequence[Message]) -> None:
    """Raise BadMessages unless it is: maybe a system text, then user and assistant in turn, the user last."""
    if not messages:
        raise _bad("there are no messages")
    start = 1 if messages[0].get("role") == "system" else 0
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        expected = "system" if i < start else ("user", "assistant")[(i - start) % 2]
        if role != expected:
            raise _bad(f"message {i + 1} is from {role!r}, expected {expected!r}")
        if not (_is_parts(content) if role == "assistant" and isinstance(content, list) else isinstance(content, str)):
            raise _bad(f"message {i + 1} has no text")
    if messages[-1]["role"] != "user":
        raise _bad("the last message is not from the user")


def _is_parts(content: list[Any]) -> bool:
    kinds = ("text", "python", "python_output")
    return all(isinstance(p, Mapping) and p.get("type") in kinds and isinstance(p.get("text"), str) for p in content)


def _bad(text: str) -> BadMessages:
    return BadMessages(text, "send user and assistant messages in turn, the user's last", "messages")

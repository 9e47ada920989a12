"""Fits a conversation into the model's context: the oldest turns go, the system text and the last question stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.context import StageError
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import Message, render_for_completion

_NO_LIMIT = 1 << 60


class ContextFull(StageError):
    """The last question alone is longer than what the model can read."""


@dataclass(frozen=True)
class Prompt:
    """Token ids that end where the assistant begins to speak, and how many messages had to be left out."""

    ids: list[int]
    dropped_turns: int


def fit_prompt(tokenizer: Tokenizer, messages: Sequence[Message], context: int, max_tokens: int) -> Prompt:
    """Render `messages` so that an answer has room. Raises ConversationError or ContextFull.

    Turns are dropped from the oldest on, a question with its answer, until `max_tokens` fit behind the prompt, or a
    quarter of the context where that is less. The last question may use that room up to its last token.
    """
    ids = render_for_completion(tokenizer, messages, _NO_LIMIT)
    system = list(messages[:1]) if messages[0]["role"] == "system" else []
    turns = list(messages[len(system) :])
    room, dropped = min(max_tokens, context // 4), 0
    while len(ids) + room > context and len(turns) > 2:
        turns, dropped = turns[2:], dropped + 2
        ids = render_for_completion(tokenizer, [*system, *turns], _NO_LIMIT)
    if len(ids) >= context:
        raise ContextFull(f"the message takes {len(ids):,} tokens, and this model reads {context:,} in all",
                          "shorten the message", "context")
    return Prompt(ids, dropped)

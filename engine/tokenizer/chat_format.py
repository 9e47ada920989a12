"""How a conversation is laid out in tokens, and which of them the assistant must learn to say.

    bos user_start ... user_end assistant_start ... assistant_end user_start ...

The mask is 1 where the assistant speaks: its words, its calls of the calculator, the end of its turn. What the
calculator answers is read, not said: 0. Nothing here knows of batches, tensors or how answers are sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.tokenizer.bpe import Tokenizer

Message = Mapping[str, Any]

# part of an assistant's message -> the special tokens around it, and whether the assistant says it
_PARTS: dict[str, tuple[str | None, str | None, int]] = {
    "text": (None, None, 1),
    "python": ("<|python_start|>", "<|python_end|>", 1),
    "python_output": ("<|output_start|>", "<|output_end|>", 0),
}


class ConversationError(ValueError):
    """The messages are not a conversation that the format can express; the message says which and why."""


def render_conversation(tok: Tokenizer, messages: Sequence[Message],
                        max_tokens: int = 2048) -> tuple[list[int], list[int]]:
    """(ids, mask) of a conversation, both cut to `max_tokens`. Raises ConversationError."""
    ids, mask = [tok.get_bos_token_id()], [0]

    def add(tokens: list[int], said: int) -> None:
        ids.extend(tokens)
        mask.extend([said] * len(tokens))

    for place, message in enumerate(_merge_system(messages)):
        role = message.get("role")
        expected = "assistant" if place % 2 else "user"
        if role != expected:
            raise ConversationError(f"message {place} is from {role!r}: user and assistant take turns, so {expected}")
        add([tok.encode_special(f"<|{role}_start|>")], 0)
        if role == "user":
            add(tok.encode(_string(message.get("content"), place)), 0)
            add([tok.encode_special("<|user_end|>")], 0)
        else:
            for tokens, said in _assistant_parts(tok, message.get("content"), place):
                add(tokens, said)
            add([tok.encode_special("<|assistant_end|>")], 1)
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(tok: Tokenizer, messages: Sequence[Message], max_tokens: int = 2048) -> list[int]:
    """Ids that ask the assistant to speak: the conversation without its last answer, and assistant_start.

    Messages end with the user's turn, or with an assistant's answer that is dropped.
    """
    given = list(messages)
    if given and given[-1].get("role") == "assistant":
        given.pop()
    if not given or given[-1].get("role") != "user":
        raise ConversationError("no user's message to answer")
    ids, _ = render_conversation(tok, given, max_tokens)
    return [*ids, tok.encode_special("<|assistant_start|>")]


def visualize_tokenization(tok: Tokenizer, ids: Sequence[int], mask: Sequence[int],
                           with_token_id: bool = False) -> str:
    """The tokens joined by '|', green where the assistant speaks and red elsewhere, for a terminal."""
    shown = []
    for token, said in zip(ids, mask, strict=True):
        text = tok.id_to_token(token)
        plain = text if text.isprintable() else repr(text)[1:-1]
        number = f"\033[90m({token})\033[0m" if with_token_id else ""
        shown.append(f"\033[{92 if said else 91}m{plain}\033[0m{number}")
    return "|".join(shown)


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    """There is no system turn in the format: its text goes in front of the first user's."""
    given = list(messages)
    if not given:
        raise ConversationError("a conversation has at least one message")
    if given[0].get("role") != "system":
        return given
    if len(given) < 2 or given[1].get("role") != "user":
        raise ConversationError("a system message must be followed by a user's")
    text = _string(given[0].get("content"), 0) + "\n\n" + _string(given[1].get("content"), 1)
    return [{"role": "user", "content": text}, *given[2:]]


def _assistant_parts(tok: Tokenizer, content: Any, place: int) -> list[tuple[list[int], int]]:
    """(tokens, said) of each part; every part is encoded on its own, so tokens never cross from one to the next."""
    if isinstance(content, str):
        return [(tok.encode(content), 1)]
    if not isinstance(content, (list, tuple)):
        raise ConversationError(f"message {place}: an assistant's content is a text or a list of parts")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _PARTS:
            raise ConversationError(f"message {place}: unknown part {kind!r}; known: {', '.join(_PARTS)}")
        before, after, said = _PARTS[kind]
        parts.append((tok.encode(_string(part.get("text"), place), prepend=before, append=after), said))
    return parts


def _string(value: Any, place: int) -> str:
    if not isinstance(value, str):
        raise ConversationError(f"message {place}: expected text, not {type(value).__name__}")
    return value

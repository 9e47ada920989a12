"""One exchange of the little world: what was said, and how an answer to its last question is to be judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Messages from a first user turn to the assistant's reference answer, and the rule that judges that answer.

    `accept` is plain JSON, see `engine.world.marking`.
    """

    messages: list[Message]
    accept: dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def calculated(expression: str, result: str, text: str) -> Message:
    """An answer that first asks the calculator; its result is given by the tool, never guessed by the model."""
    parts = [{"type": "python", "text": expression}, {"type": "python_output", "text": result},
             {"type": "text", "text": text}]
    return {"role": "assistant", "content": parts}


def exchange(question: str, answer: str, accept: dict[str, Any]) -> Sample:
    return Sample([user(question), assistant(answer)], accept)


def visible_text(content: str | list[dict[str, str]]) -> str:
    """What a person reads of a message: its text without tool calls and their results."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def tool_results(content: str | list[dict[str, str]]) -> list[str]:
    if isinstance(content, str):
        return []
    return [part["text"] for part in content if part["type"] == "python_output"]


def all_text(messages: list[Message]) -> str:
    """Every character of a conversation, tool calls included: what it costs of the context."""
    parts = [m["content"] if isinstance(m["content"], str) else "".join(p["text"] for p in m["content"])
             for m in messages]
    return "\n".join(parts)

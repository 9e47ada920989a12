"""Conversations on disk: JSON lines, each an array of messages, as nanochat's CustomJSON has them.

User and assistant take turns, the user first, at least two messages. A user's content is text; an assistant's is text
or a list of parts {"type": "text" | "python" | "python_output", "text": ...}. What is wrong is named by file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from engine.context import StageError
from engine.rundir import write_atomic

Message = dict[str, Any]
Conversation = list[Message]

FOLDER = "conversations"
PART_TYPES = ("text", "python", "python_output")


class ConversationError(StageError):
    """A line of a conversations file cannot be used; the message names file and line."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}", "correct the line or remove it", "conversation")
        self.path, self.line = path, line


def read_conversations(path: Path) -> list[Conversation]:
    """Every conversation of a file. Raises ConversationError at a line that is none, StageError without file."""
    return list(iterate(path))


def iterate(path: Path) -> Iterator[Conversation]:
    """The conversations of a file one by one; empty lines are skipped."""
    for number, row in json_lines(path):
        problem = check(row)
        if problem:
            raise ConversationError(path, number, problem)
        yield row


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not empty."""
    try:
        with open(path, "rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield number, _parse(path, number, line)
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}", "run the dataset stage first", "data") from None


def _parse(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConversationError(path, number, f"not JSON: {error}") from None


def check(row: Any) -> str | None:
    """What is wrong with a conversation, or None."""
    if not isinstance(row, list):
        return "a conversation is a JSON array of messages"
    if len(row) < 2:
        return f"a conversation has at least 2 messages, this one has {len(row)}"
    for at, message in enumerate(row):
        problem = _check_message(message, ("user", "assistant")[at % 2])
        if problem:
            return f"message {at + 1} {problem}"
    return None


def _check_message(message: Any, role: str) -> str | None:
    if not isinstance(message, dict) or "role" not in message or "content" not in message:
        return 'is not an object with "role" and "content"'
    if message["role"] != role:
        return f"is from {message['role']!r}, but it is the turn of {role!r}"
    content = message["content"]
    if isinstance(content, str):
        return None
    if role == "user" or not isinstance(content, list):
        return "has content that is not text"
    if not all(isinstance(p, dict) and p.get("type") in PART_TYPES and isinstance(p.get("text"), str) for p in content):
        return f'has a part that is not {{"type": one of {", ".join(PART_TYPES)}, "text": text}}'
    return None


def write_json_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON value per line, whole or not at all. Returns how many."""
    lines = [json.dumps(row, separators=(",", ":")) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(line + "\n" for line in lines).encode())
    return len(lines)

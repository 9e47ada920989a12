"""Sets of conversations to train on: SmolTalk, and four more that a mixture may name.

Each file of the Hub has its own way to write a conversation down; here it becomes user and assistant in turns. What
does not make a conversation (it ends before an answer, or one side speaks twice) is cut at that point or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from engine.tasks.rows import HubTask
from engine.tasks.task import Conversation, Problem

_SPEAKER = re.compile(r"^\s*User\s*([12])\s*:\s*", re.IGNORECASE)
_ROLES = ("user", "assistant")


def in_turns(said: Iterable[tuple[str, str]], system: str = "") -> Conversation:
    """(role, text) pairs up to the first one that is out of turn or empty, and up to the last answer; [] if none."""
    messages: Conversation = []
    for role, text in said:
        if role != _ROLES[len(messages) % 2] or not text.strip():
            break
        messages.append({"role": role, "content": text})
    messages = messages[: len(messages) // 2 * 2]
    return [{"role": "system", "content": system}, *messages] if system and messages else messages


class ChatTask(HubTask):
    """A set whose rows may hold no usable conversation; those are found once, when the set is read."""

    kind = "training"

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        raise NotImplementedError

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        return Problem(self.conversation(row))

    def usable(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        return [i for i, row in enumerate(rows) if self.conversation(row)]


class SmolTalk(HubTask):
    """Conversations of a larger model, maybe with a system message first."""

    kind = "training"
    columns = ("messages",)

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        return Problem([{"role": m["role"], "content": m["content"]} for m in row["messages"]])


class SyntheticPersonaChat(ChatTask):
    """Two made-up persons get to know each other; the second one's persona becomes the system message."""

    columns = ("user 2 personas", "Best Generated Conversation")

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        said: list[tuple[str, str]] = []
        for line in (row["Best Generated Conversation"] or "").splitlines():
            if speaker := _SPEAKER.match(line):
                said.append((_ROLES[int(speaker[1]) - 1], line[speaker.end():].strip()))
            elif said and line.strip():  # an utterance of more than one line
                said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
        persona = " ".join((row["user 2 personas"] or "").split())
        return in_turns(said, persona and f"Your persona: {persona}")


class DailyDialog(ChatTask):
    """Everyday talk between two people, written by people."""

    columns = ("dialog",)

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        return in_turns((_ROLES[i % 2], text.strip()) for i, text in enumerate(row["dialog"] or []))


class LmsysChat(ChatTask):
    """What people asked 25 models on the web; conversations with redacted names are left out."""

    columns = ("conversation", "redacted")

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        if row["redacted"]:
            return []
        return in_turns((m["role"], m["content"] or "") for m in row["conversation"] or [])


class Magpie(ChatTask):
    """Instructions that an aligned model made up by itself, and its answers."""

    columns = ("conversations",)
    _NAMES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}  # noqa: RUF012

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        return in_turns((self._NAMES.get(m["from"], m["from"]), m["value"] or "") for m in row["conversations"] or [])

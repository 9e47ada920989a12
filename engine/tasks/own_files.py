"""Conversations from a file of the user's, and those about itself that a model is given where there is no file."""

from __future__ import annotations

from pathlib import Path

from engine.context import StageError
from engine.data.conversations import read_conversations
from engine.rundir import shared_base
from engine.tasks.identity import conversations
from engine.tasks.task import Conversation, Problem, Task

IDENTITY_FILE = "identity_conversations.jsonl"  # nanochat's name for it, in the base directory


class CustomJson(Task):
    """One JSON array of messages per line."""

    def __init__(self, path: Path, *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.name, self.path = f"json:{path}", path
        self.conversations = read_conversations(path)
        if not self.conversations:
            raise StageError(f"{path} holds no conversations", "write one JSON array of messages per line", "data")

    def num_rows(self) -> int:
        return len(self.conversations)

    def row(self, i: int) -> Problem:
        return Problem(self.conversations[i])


class Identity(Task):
    """Who the model is: the base directory's identity file where there is one, else the built-in set."""

    name = "identity"

    def __init__(self, base: Path, *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        paths = [folder / IDENTITY_FILE for folder in (base, shared_base(base))]
        path = next((path for path in paths if path.exists()), None)
        self.origin = str(path) if path else "built in"
        self._rows: list[Conversation] = read_conversations(path) if path else conversations()

    def num_rows(self) -> int:
        return len(self._rows)

    def row(self, i: int) -> Problem:
        return Problem(self._rows[i])

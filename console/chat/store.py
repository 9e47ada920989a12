"""Kept chats: one SQLite file in the console's folder, readable by its owner alone. Knows no screen and no model.

A chat is a row; its turns are the JSON of `Conversation.rows()`. Opened for every call, so an idle chat holds nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.errors import ConsoleError, NotFound

_VERSION = 1
_SCHEMA = ("CREATE TABLE chats (id INTEGER PRIMARY KEY, title TEXT NOT NULL, model TEXT NOT NULL,"
           " created REAL NOT NULL, updated REAL NOT NULL, replies INTEGER NOT NULL, turns TEXT NOT NULL)")
_UPDATE = "UPDATE chats SET title = ?, model = ?, updated = ?, replies = ?, turns = ? WHERE id = ?"
_INSERT = "INSERT INTO chats (title, model, updated, replies, turns, created) VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class KeptChat:
    """One line of the list."""

    id: int
    title: str
    model: str
    updated: float
    replies: int


class ChatStore:
    """`path` is made with the first chat that is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, id: int | None, title: str, model: str, turns: list[dict[str, Any]]) -> int:
        """Write a chat, or write it again; its number. Raises ConsoleError."""
        now, text = time.time(), json.dumps(turns)
        replies = sum(turn.get("role") == "assistant" for turn in turns)
        values = (title, model, now, replies, text)
        with self._open() as db:
            if id is not None and db.execute(_UPDATE, (*values, id)).rowcount:
                return id
            return int(db.execute(_INSERT, (*values, now)).lastrowid or 0)

    def all(self) -> list[KeptChat]:
        """Newest first. Raises ConsoleError."""
        if not self._path.exists():
            return []
        with self._open() as db:
            rows = db.execute("SELECT id, title, model, updated, replies FROM chats ORDER BY updated DESC, id DESC")
            return [KeptChat(*row) for row in rows]

    def turns(self, id: int) -> list[dict[str, Any]]:
        """What was said. Raises NotFound, ConsoleError."""
        with self._open() as db:
            row = db.execute("SELECT turns FROM chats WHERE id = ?", (id,)).fetchone()
        try:
            turns = json.loads(row[0]) if row else None
        except ValueError:
            raise ConsoleError(f"chat {id} is damaged", "the others are not touched") from None
        if not isinstance(turns, list):
            raise NotFound(f"there is no chat {id}")
        return [turn for turn in turns if isinstance(turn, dict)]

    def forget(self, id: int) -> None:
        with self._open() as db:
            db.execute("DELETE FROM chats WHERE id = ?", (id,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            db = sqlite3.connect(self._path, timeout=5)
            try:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version > _VERSION:
                    raise ConsoleError(f"{self._path} was written by a newer llmconsole", "update this one")
                with db:
                    if version == 0:
                        db.execute(_SCHEMA)
                        db.execute(f"PRAGMA user_version = {_VERSION}")
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise ConsoleError(f"the kept chats cannot be used: {error}", f"look at {self._path}") from None


def export_line(messages: list[dict[str, Any]], system: str = "") -> str:
    """The conversation as one line of the JSONL that custom-data training reads: user and assistant in turn, texts.

    What the calculator did is left out; a last question without an answer, too.
    """
    kept = [{"role": m["role"], "content": _plain(m["content"])} for m in messages]
    if kept and kept[-1]["role"] == "user":
        kept.pop()
    if not kept:
        raise ConsoleError("there is no answered question to write", "ask something first")
    if system:
        kept[0]["content"] = f"{system}\n\n{kept[0]['content']}"
    return json.dumps(kept) + "\n"


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")

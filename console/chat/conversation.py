"""A chat as data: turns, what the worker said about the newest one, the messages to send. Knows no screen, no process.

All text of an answer is cleaned on its way in; what is sent back to the model is that same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from console.text import clean

_KNOWN_AT_FIRST = ("prompt_tokens", "dropped_turns", "context")

@dataclass
class Part:
    """A stretch of one turn: text, or the calculator's question (`input`) and result (`output`)."""

    kind: str  # text | input | output
    text: str


@dataclass
class Trouble:
    """Why an answer broke off, and what to do."""

    code: str
    text: str
    next: str


@dataclass
class Turn:
    """One message. An answer has an `id` while it is being written."""

    role: str  # user | assistant | note (ours, never sent)
    parts: list[Part] = field(default_factory=list)
    id: str = ""
    finish: str = ""  # stop | length | cancelled | context
    stats: dict[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None
    model: str = ""  # who answered
    times: list[float] = field(default_factory=list)  # ms before each token so far, while it is being written

    @property
    def text(self) -> str:
        """What was said, without the tools."""
        return "".join(part.text for part in self.parts if part.kind == "text")

    @property
    def complete(self) -> bool:
        return self.role != "assistant" or bool(self.finish or self.trouble)

    @property
    def figures(self) -> dict[str, Any]:
        """The statistics, or what is known of them while it is being written."""
        if self.complete or not self.times:
            return self.stats
        gaps, count = self.times[1:], len(self.times)
        known = {**self.stats, "ttft_ms": self.times[0], "completion_tokens": count, "gaps_ms": gaps,
                 "seconds": sum(self.times) / 1000, "context_used": self.stats.get("prompt_tokens", 0) + count}
        if sum(gaps):
            known |= {"tok_per_s": 1000 * len(gaps) / sum(gaps), "p95_ms": sorted(gaps)[int(0.95 * len(gaps))]}
        return known

    def add(self, kind: str, text: str) -> None:
        if self.parts and self.parts[-1].kind == kind == "text":
            self.parts[-1].text += text
        else:
            self.parts.append(Part(kind, text))


class Conversation:
    """The turns so far and the one that is being written."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.replies = self.stopped = self.tokens_in = self.tokens_out = 0
        self.seconds = 0.0
        self.count = 0

    @property
    def writing(self) -> Turn | None:
        """The answer that is under way."""
        last = self.turns[-1] if self.turns else None
        return last if last is not None and not last.complete else None

    def ask(self, text: str) -> Turn:
        """Add a question and an empty answer; the answer."""
        self.turns.append(Turn("user", [Part("text", clean(text))]))
        return self._answer()

    def again(self) -> Turn | None:
        """Drop the newest answer and begin another to the same question."""
        if self.writing is not None:
            return None
        while self.turns and self.turns[-1].role != "user":
            self.turns.pop()
        return self._answer() if self.turns else None

    def note(self, text: str) -> None:
        """Say something that is no part of the chat; not while an answer is being written."""
        if self.writing is None:
            self.turns.append(Turn("note", [Part("text", clean(text))]))

    def take_back(self) -> str:
        """Remove the newest question and its answer; the question's text, to be edited."""
        if self.writing is not None:
            return ""
        while self.turns:
            turn = self.turns.pop()
            if turn.role == "user":
                return turn.text
        return ""

    def _answer(self) -> Turn:
        self.count += 1
        self.turns.append(Turn("assistant", id=f"g{self.count}"))
        return self.turns[-1]

    def messages(self) -> list[dict[str, Any]]:
        """What the model gets: every turn before the open answer; broken answers and their questions stay out."""
        kept: list[dict[str, Any]] = []
        turns = [turn for turn in self.turns if turn.complete and turn.role != "note"]
        for turn, after in zip_longest(turns, turns[1:]):
            failed = after is not None and after.role == "assistant" and (after.trouble is not None or not after.parts)
            if turn.role == "user" and not failed:
                kept.append({"role": "user", "content": turn.text})
            elif turn.role == "assistant" and turn.parts and turn.trouble is None:
                kept.append({"role": "assistant", "content": _content(turn)})
        return kept

    def rows(self) -> list[dict[str, Any]]:
        """The finished turns as JSON has them, to be kept."""
        return [{"role": turn.role, "parts": [[part.kind, part.text] for part in turn.parts], "finish": turn.finish,
                 "stats": turn.stats, "model": turn.model}
                for turn in self.turns if turn.role != "note" and turn.complete and turn.trouble is None]

    @classmethod
    def of(cls, rows: list[dict[str, Any]], count: int = 0) -> Conversation:
        """The chat that `rows` were kept of. What is not as we write it is left out."""
        made = cls()
        made.count = count
        for row in rows:
            parts = [Part(str(kind), clean(str(text))) for kind, text in row.get("parts") or []]
            if row.get("role") in ("user", "assistant") and parts:
                stats = row.get("stats")
                made.turns.append(Turn(row["role"], parts, finish=str(row.get("finish") or "stop"),
                                       stats=stats if isinstance(stats, dict) else {},
                                       model=str(row.get("model") or "")))
        return made

    def hear(self, event: Mapping[str, Any]) -> bool:
        """Take in one line of the worker's protocol; True when it changed the newest answer."""
        turn = self.writing
        if turn is None or event.get("id") not in (turn.id, None):
            return False
        kind, text = event.get("event"), clean(str(event.get("text", "")))
        turn.times += _numbers(event.get("ms"))
        if kind == "begin":
            turn.stats = {name: event[name] for name in _KNOWN_AT_FIRST if isinstance(event.get(name), int)}
        elif kind == "token":
            turn.add("text", text)
        elif kind == "tool":
            turn.add("input" if event.get("phase") == "input" else "output", text)
        elif kind == "done":
            self._done(turn, event)
        elif kind == "error":
            self.fail(str(event.get("code", "error")), str(event.get("message", "")), str(event.get("next", "")))
        else:
            return False
        return True

    def _done(self, turn: Turn, event: Mapping[str, Any]) -> None:
        stats = event.get("stats")
        turn.finish = str(event.get("finish") or "stop")
        turn.stats = dict(stats) if isinstance(stats, Mapping) else {}
        self.replies += 1
        self.stopped += turn.finish == "cancelled"
        self.tokens_in += int(turn.stats.get("prompt_tokens") or 0)
        self.tokens_out += int(turn.stats.get("completion_tokens") or 0)
        self.seconds += float(turn.stats.get("seconds") or 0)

    def fail(self, code: str, text: str, next: str) -> None:
        """The answer under way broke off."""
        if (turn := self.writing) is not None:
            turn.trouble = Trouble(code, clean(text), clean(next))


def _numbers(values: Any) -> list[float]:
    return [float(v) for v in values if isinstance(v, (int, float))] if isinstance(values, list) else []


def _content(turn: Turn) -> Any:
    """A plain string, or typed parts when a tool was used."""
    if all(part.kind == "text" for part in turn.parts):
        return turn.text
    kinds = {"text": "text", "input": "python", "output": "python_output"}
    return [{"type": kinds[part.kind], "text": part.text} for part in turn.parts]

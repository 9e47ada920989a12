"""The thread that answers with one copy of a model: takes questions from the queue, advances all rows, hands text on.

A row is free for the next question within a token of its answer's end or of its reader's leaving. Whatever goes wrong
with one answer ends that answer, or at worst those beside it, and never the thread.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from engine.inference.chat import Chat
from engine.inference.generate import finish_of
from engine.inference.stream import AnswerStream, LiteralStream, Piece
from engine.serving.answers import Answer, Ended, Event, deliver
from engine.serving.fair_queue import FairQueue
from engine.serving.rows import Rows
from engine.serving.stop_text import StopText


class Replica(threading.Thread):
    """One copy of a model on one device."""

    def __init__(self, chat: Chat, new_rows: Callable[[], Rows], slots: int, queue: FairQueue) -> None:
        super().__init__(daemon=True, name="answers")
        self.chat, self.slots = chat, slots
        self._new_rows, self._queue = new_rows, queue
        self._rows = new_rows()
        self._writing: dict[int, _Writing] = {}
        self._closing = False
        self._hold = 0  # rows that this thread has promised to the queue
        self._promise()

    @property
    def busy_rows(self) -> int:
        return len(self._writing)

    def close(self) -> None:
        """End after the step under way; the queue is closed by its owner."""
        self._closing = True

    def run(self) -> None:
        while not self._closing:
            self._admit()
            if self._writing:
                self._advance()
        deliver([(w.answer, [Ended("error", message="the server is stopping")]) for w in self._writing.values()])
        self._writing.clear()

    def _promise(self) -> None:
        """Tell the queue how many rows are free."""
        free = self.slots - len(self._writing)
        self._queue.offer_rows(free - self._hold)
        self._hold = free

    def _admit(self) -> None:
        """Give free rows to whoever waits; wait for somebody when there is nothing else to do."""
        while len(self._writing) < self.slots and not self._closing:
            answer = self._queue.take(wait=not self._writing)
            if answer is None:
                return
            writing = _Writing(answer, self.chat)
            self._writing[answer.number] = writing
            self._promise()
            question = answer.question
            try:
                self._rows.add(answer.number, question.prompt.ids, question.sampling, writing.limit,
                               lambda answer=answer: answer.cancelled or self._closing)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - one question must not end the others
                traceback.print_exc()
                deliver([(answer, [self._end(writing, "error", _words(error))])])

    def _advance(self) -> None:
        for writing in [w for w in self._writing.values() if w.answer.cancelled]:
            self._end(writing, "cancelled")
        if not self._writing:
            return
        try:
            tokens = self._rows.step()
        except Exception as error:  # noqa: BLE001 - out of memory and the like: those under way end, the next may work
            traceback.print_exc()
            ended = [(w.answer, [self._end(w, "error", _words(error))]) for w in list(self._writing.values())]
            self._rows = self._new_rows()
            deliver(ended)
            return
        deliver([self._hear(self._writing[key], token) for key, token in tokens if key in self._writing])

    def _hear(self, writing: _Writing, token: int | None) -> tuple[Answer, list[Event]]:
        """One more token of an answer, or None when there are no more."""
        events: list[Event] = list(writing.push(token))
        if writing.finish:
            events += [*writing.close(), self._end(writing, writing.finish)]
        return writing.answer, events

    def _end(self, writing: _Writing, finish: str, message: str = "") -> Ended:
        self._rows.remove(writing.answer.number)
        self._writing.pop(writing.answer.number, None)
        self._promise()
        return Ended(finish, writing.stats(), message)


class _Writing:
    """An answer under way."""

    def __init__(self, answer: Answer, chat: Chat) -> None:
        self.answer, self._context = answer, chat.context
        question = answer.question
        self._asked_for, self._prompt = question.max_tokens, question.prompt
        self.limit = chat.engine.room(len(question.prompt.ids), question.max_tokens)
        self._ends = chat.engine.special.ends
        self._stream = (LiteralStream if question.literal else AnswerStream)(chat.tokenizer)
        self._stop = StopText(question.stops)
        self._began = time.perf_counter()
        self._first = self._last = 0.0
        self._count = 0
        self.finish = ""

    def push(self, token: int | None) -> list[Piece]:
        """The pieces that this token completes. Sets `finish` with the last one."""
        if token is None:
            self.finish = finish_of(False, self._count, self.limit, self._asked_for)
            return []
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if self._ends(token):
            self.finish = "stop"
            return []
        self._count += 1
        pieces = self._filtered(self._stream.push(token))
        if self._stop.hit:
            self.finish = "stop"
        elif self._count >= self.limit:
            self.finish = finish_of(False, self._count, self.limit, self._asked_for)
        return pieces

    def close(self) -> list[Piece]:
        """What was held back."""
        if self._stop.hit:
            return []
        pieces = self._filtered(self._stream.close())
        rest = self._stop.close() if not self._stop.hit else ""
        return [*pieces, Piece("text", rest)] if rest else pieces

    def _filtered(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces without what the stop strings swallow; the calculator's are shown as they are."""
        shown = [Piece("text", self._stop.push(p.text)) if p.kind == "text" else p for p in pieces]
        return [piece for piece in shown if piece.text]

    def stats(self) -> dict[str, float]:
        """What it took so far; times in milliseconds, speed after the first token."""
        spent = self._last - self._first
        return {"queue_ms": round(1000 * (self._began - self.answer.asked), 2),
                "ttft_ms": round(1000 * (self._first - self.answer.asked), 2) if self._first else 0.0,
                "tok_per_s": round((self._count - 1) / spent, 2) if spent > 0 and self._count > 1 else 0.0,
                "prompt_tokens": len(self._prompt.ids), "completion_tokens": self._count,
                "seconds": round(time.perf_counter() - self.answer.asked, 3),
                "dropped_turns": self._prompt.dropped_turns, "context_used": len(self._prompt.ids) + self._count,
                "context": self._context}


def _words(error: Exception) -> str:
    return f"the model failed: {type(error).__name__}"

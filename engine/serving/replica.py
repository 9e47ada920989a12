"""The thread that answers with one copy of a model: takes questions from the queue, advances all rows, hands text on.

A row is free for the next question within a token of its answer's end or of its reader's leaving. Whatever goes wrong
with one answer ends that answer, or at worst those beside it, and never the thread.
"""

from __future__ import annotations

import threading
import time
import traceback

from engine.inference.batch import DecodeBatch, Token
from engine.inference.chat import Chat
from engine.inference.stream import AnswerStream, LiteralStream, Piece
from engine.serving.answers import Answer, Ended, Event, deliver
from engine.serving.fair_queue import FairQueue
from engine.serving.stop_text import StopText


class Replica(threading.Thread):
    """One copy of a model on one device."""

    def __init__(self, chat: Chat, slots: int, queue: FairQueue) -> None:
        super().__init__(daemon=True, name="answers")
        self.chat, self.slots, self._queue = chat, slots, queue
        self._batch = DecodeBatch(chat.engine, slots)
        self._writing: dict[int, _Writing] = {}  # by the batch's slot
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
            question, writing = answer.question, _Writing(answer, self.chat)
            try:
                slot = self._batch.add(question.prompt.ids, question.sampling, question.max_tokens)
            except Exception as error:  # noqa: BLE001 - one question must not end the others
                traceback.print_exc()
                deliver([(answer, [Ended("error", writing.stats(), _words(error))])])
                continue
            self._writing[slot] = writing
            self._promise()

    def _advance(self) -> None:
        for slot in [slot for slot, writing in self._writing.items() if writing.answer.cancelled]:
            self._end(slot, "cancelled")
        if not self._writing:
            return
        try:
            tokens = self._batch.step()
        except Exception as error:  # noqa: BLE001 - out of memory and the like: those under way end, the next may work
            traceback.print_exc()
            ended = [(w.answer, [self._end(slot, "error", _words(error))]) for slot, w in list(self._writing.items())]
            self._batch = DecodeBatch(self.chat.engine, self.slots)
            deliver(ended)
            return
        deliver([self._hear(slot, token) for slot, token in tokens.items()])

    def _hear(self, slot: int, token: Token) -> tuple[Answer, list[Event]]:
        """One more token of an answer."""
        writing = self._writing[slot]
        pieces, finish = writing.push(token)
        end = [self._end(slot, finish)] if finish else []
        return writing.answer, [*pieces, *end]

    def _end(self, slot: int, finish: str, message: str = "") -> Ended:
        self._batch.remove(slot)
        writing = self._writing.pop(slot)
        self._promise()
        return Ended(finish, writing.stats(), message)


class _Writing:
    """An answer under way."""

    def __init__(self, answer: Answer, chat: Chat) -> None:
        self.answer, self._context = answer, chat.context
        question = answer.question
        self._prompt = question.prompt
        self._stream = (LiteralStream if question.literal else AnswerStream)(chat.tokenizer)
        self._stop = StopText(question.stops)
        self._began = time.perf_counter()
        self._first = self._last = 0.0
        self._count = 0

    def push(self, token: Token) -> tuple[list[Piece], str]:
        """The pieces that this token completes, and why the answer ends with it, "" where it goes on."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        pieces: list[Piece] = []
        if token.finish != "stop":
            self._count += 1
            pieces = self._filtered(self._stream.push(token.id))
        if token.finish and not self._stop.hit:
            pieces += self._filtered(self._stream.close())
            rest = "" if self._stop.hit else self._stop.close()
            pieces += [Piece("text", rest)] if rest else []
        return pieces, "stop" if self._stop.hit else token.finish or ""

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

"""One answer on its way from the thread that computes it to the coroutine that sends it.

The thread only puts, the coroutine only takes; `cancel` may be called from anywhere and is obeyed before the next
token. What waits to be sent is bounded by the length of the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.inference.prompt import Prompt
from engine.inference.sampling import Sampling
from engine.inference.stream import Piece


@dataclass(frozen=True)
class Question:
    """What to answer: a prompt that fits the model, how to choose tokens, when to stop."""

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    stops: tuple[str, ...] = ()
    literal: bool = False  # special tokens are text, as nanochat's web API has them


@dataclass(frozen=True)
class Ended:
    """The end of an answer: stop | length | context | cancelled | error, and what it took."""

    finish: str
    stats: dict[str, Any] = field(default_factory=dict)
    message: str = ""


Event = Piece | Ended


class Answer:
    """Made in the event loop that will read it."""

    def __init__(self, question: Question, client: str) -> None:
        self.question, self.client = question, client
        self.asked = time.perf_counter()
        self.cancelled = False
        self.loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def cancel(self) -> None:
        """Nobody reads this any more."""
        self.cancelled = True

    def put(self, events: Iterable[Event]) -> None:
        """Called in the event loop, by way of `deliver`."""
        for event in events:
            self._events.put_nowait(event)

    async def events(self, patience: float) -> AsyncIterator[Event | None]:
        """Pieces, then one Ended. None each time that nothing came for `patience` seconds."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), patience)
            except asyncio.TimeoutError:
                yield None
                continue
            yield event
            if isinstance(event, Ended):
                return


def deliver(batch: Sequence[tuple[Answer, Sequence[Event]]]) -> None:
    """From the computing thread: hand over everything of one step with one wake-up of the event loop."""
    if batch:
        try:
            batch[0][0].loop.call_soon_threadsafe(_put_all, batch)
        except RuntimeError:  # the loop is closed: the server is ending and nobody reads
            for answer, _ in batch:
                answer.cancel()


def _put_all(batch: Sequence[tuple[Answer, Sequence[Event]]]) -> None:
    for answer, events in batch:
        answer.put(events)

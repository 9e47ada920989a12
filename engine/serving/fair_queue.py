"""Who is served next: one request of each client in turn, so that nobody's pile of requests delays another's first.

Shared by the threads of one model. It knows nothing of models and tokens.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from engine.serving.answers import Answer


class QueueFull(Exception):
    """No more may wait."""


class FairQueue:
    """At most `limit` answers wait beyond those that free rows take at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_client: OrderedDict[str, deque[Answer]] = OrderedDict()
        self._condition = threading.Condition()
        self._count = self._free = 0
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def offer_rows(self, change: int) -> None:
        """A worker has so many more free rows, or fewer."""
        with self._condition:
            self._free += change

    def has_room(self, count: int) -> bool:
        """Whether `put` of so many would succeed now."""
        with self._condition:
            self._drop_cancelled()
            return self._count + count <= self._limit + self._free

    def put(self, answers: list[Answer]) -> None:
        """Queue all or none. Raises QueueFull."""
        with self._condition:
            self._drop_cancelled()
            if self._count + len(answers) > self._limit + self._free:
                raise QueueFull
            for answer in answers:
                self._by_client.setdefault(answer.client, deque()).append(answer)
                self._count += 1
            self._condition.notify_all()

    def take(self, wait: bool) -> Answer | None:
        """The next one that somebody still wants; None when there is none, or when the queue is closed."""
        with self._condition:
            while True:
                while self._by_client:
                    answer = self._pop()
                    if not answer.cancelled:
                        return answer
                if self._closed or not wait:
                    return None
                self._condition.wait()

    def close(self) -> list[Answer]:
        """Wake every worker; those that still wait are returned."""
        with self._condition:
            self._closed = True
            left = [answer for line in self._by_client.values() for answer in line]
            self._by_client.clear()
            self._count = 0
            self._condition.notify_all()
            return left

    def _pop(self) -> Answer:
        client, line = self._by_client.popitem(last=False)
        answer = line.popleft()
        self._count -= 1
        if line:
            self._by_client[client] = line  # at the end: its next one comes after everybody else's
        return answer

    def _drop_cancelled(self) -> None:
        for client, line in list(self._by_client.items()):
            kept = deque(answer for answer in line if not answer.cancelled)
            self._count -= len(line) - len(kept)
            if kept:
                self._by_client[client] = kept
            else:
                del self._by_client[client]

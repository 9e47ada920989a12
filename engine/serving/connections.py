"""Connections that a slow or hostile client cannot hold: a limit on how many, and on how long each may dawdle.

The HTTP library waits for ever for the rest of a request's head; here a head has a few seconds, and connections beyond
the limit are told to come back and closed before they cost memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
HEAD_S = 10.0  # seconds for the head of a request

_FULL = (b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 5\r\ncontent-length: 22\r\n"
         b"connection: close\r\n\r\ntoo many connections.\n")


class PatientConnection(H11Protocol):
    """uvicorn's HTTP/1.1 with an end to patience."""

    _head: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= MAX_CONNECTIONS:
            self._refused = True
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            self._forget_head()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head is None:
            self._expect_head()

    def eof_received(self) -> None:
        if not self._refused:
            super().eof_received()

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self._too_slow)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

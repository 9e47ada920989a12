"""From an answer's events to an HTTP reply: a stream of server-sent events, or the whole at once.

Whatever ends the reply, the client's leaving first of all, cancels the answers it was made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.inference.stream import Piece
from engine.serving.answers import Answer, Ended
from engine.serving.errors import ApiError

QUIET_S = 15.0  # a comment is sent after so long without a token, which proxies and we take as a sign of life
_ALIVE = b": waiting\n\n"


class EventStream(StreamingResponse):
    """Server-sent events made from answers, which are cancelled when it ends for whatever reason."""

    def __init__(self, events: AsyncIterator[bytes], answers: Sequence[Answer]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for answer in self._answers:
                answer.cancel()


def sse(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


async def merged(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Piece | Ended] | bytes]:
    """Events of several answers as they come, each with the answer's place; bytes are a sign of life to pass on."""
    if len(answers) == 1:
        async for event in answers[0].events(QUIET_S):
            yield _ALIVE if event is None else (0, event)
        return
    queue: asyncio.Queue[tuple[int, Piece | Ended] | bytes] = asyncio.Queue()

    async def pump(place: int, answer: Answer) -> None:
        async for event in answer.events(QUIET_S):
            queue.put_nowait(_ALIVE if event is None else (place, event))

    tasks = [asyncio.create_task(pump(place, answer)) for place, answer in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            item = await queue.get()
            left -= not isinstance(item, bytes) and isinstance(item[1], Ended)
            yield item
    finally:
        for task in tasks:
            task.cancel()


async def whole(request: Request, answers: Sequence[Answer]) -> list[tuple[list[Piece], Ended]]:
    """Every answer complete. Raises ApiError when one failed or the client left."""
    everything: asyncio.Task[Any] = asyncio.create_task(_collect_all(answers))
    leaving: asyncio.Task[Any] = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait((everything, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            raise ApiError(499, "the client left", code="cancelled")
        found = everything.result()
    finally:
        everything.cancel()
        leaving.cancel()
        for answer in answers:
            answer.cancel()
    for _, end in found:
        if end.finish == "error":
            raise ApiError(500, end.message, code="generation_failed")
    return found


async def _collect_all(answers: Sequence[Answer]) -> list[tuple[list[Piece], Ended]]:
    return list(await asyncio.gather(*map(_collect, answers)))


async def _collect(answer: Answer) -> tuple[list[Piece], Ended]:
    pieces: list[Piece] = []
    async for event in answer.events(QUIET_S):
        if isinstance(event, Ended):
            return pieces, event
        if event is not None:
            pieces.append(event)
    raise AssertionError("events() ends with Ended")


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""The models that can be asked for: found on disk, loaded when first wanted, the one least used let go for another.

Knows names, memory and threads. It knows nothing of HTTP but the errors that a request may end with.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.catalog import ModelInfo, default_model, find
from engine.config import ConfigError
from engine.context import StageError
from engine.inference.chat import Chat, release_memory
from engine.inference.prompt import fit_prompt
from engine.inference.sampling import Sampling
from engine.serving.answers import Answer, Ended, Question, deliver
from engine.serving.errors import ApiError, Busy
from engine.serving.fair_queue import FairQueue, QueueFull
from engine.serving.replica import Replica
from engine.settings.serving import Serve
from engine.tokenizer.chat_format import ConversationError, Message

Load = Callable[[ModelInfo], list[Chat]]  # one per device
_JOIN_S = 5.0


class Served:
    """A model in memory: its copies, their threads, and the queue before them."""

    def __init__(self, info: ModelInfo, chats: list[Chat], description: dict[str, Any], settings: Serve) -> None:
        self.info, self.description, self.settings = info, description, settings
        self.queue = FairQueue(settings.queue)
        self.replicas = [Replica(chat, settings.rows, self.queue) for chat in chats]
        self.used = time.monotonic()
        self._seconds = 1.0  # mean time of an answer, newest counting most
        self.asking = 0  # requests that are about to be queued
        for replica in self.replicas:
            replica.start()

    @property
    def chat(self) -> Chat:
        return self.replicas[0].chat

    def load(self) -> dict[str, int]:
        """How many answers are being written, and how many wait."""
        return {"writing": sum(replica.busy_rows for replica in self.replicas), "waiting": len(self.queue)}

    @property
    def busy(self) -> bool:
        return bool(self.asking or any(self.load().values()))

    async def ask(self, messages: Sequence[Message], samplings: Sequence[Sampling], max_tokens: int, client: str,
                  stops: tuple[str, ...] = (), literal: bool = False) -> list[Answer]:
        """Queue one answer per sampling. Raises ApiError when the conversation cannot be answered, Busy."""
        self.used = time.monotonic()
        self.asking += 1
        try:
            if not self.queue.has_room(len(samplings)):
                raise QueueFull  # before any work is put into it
            prompt = await asyncio.to_thread(fit_prompt, self.chat.tokenizer, messages, self.chat.context, max_tokens)
            answers = [Answer(Question(prompt, s, max_tokens, stops, literal), client) for s in samplings]
            self.queue.put(answers)
            return answers
        except ConversationError as error:
            raise ApiError(400, _sentence(str(error)), param="messages", code="messages") from None
        except StageError as error:
            raise ApiError(400, _sentence("; ".join(filter(None, (str(error), error.next)))), param="messages",
                           code="context_length_exceeded") from None
        except QueueFull:
            raise Busy("too many requests are waiting; try again in a moment", self._retry_after()) from None
        finally:
            self.asking -= 1

    def took(self, seconds: float) -> None:
        """An answer was finished: remembered to tell others how long to wait."""
        self.used = time.monotonic()
        self._seconds += 0.3 * (seconds - self._seconds)

    def _retry_after(self) -> int:
        rows = sum(replica.slots for replica in self.replicas)
        return min(max(math.ceil(self._seconds * (len(self.queue) + 1) / rows), 1), 60)

    def close(self) -> None:
        """Let the model go; whatever was still asked of it ends with an error."""
        for replica in self.replicas:
            replica.close()
        left = self.queue.close()
        deliver([(answer, [Ended("error", message="the server is stopping")]) for answer in left])
        for replica in self.replicas:
            replica.join(_JOIN_S)


class Shelf:
    """Models by name. `find_models` looks at the disk, `load` reads one."""

    def __init__(self, find_models: Callable[[], list[ModelInfo]], load: Load,
                 describe: Callable[[Chat, ModelInfo], dict[str, Any]], settings: Serve) -> None:
        self._find, self._load, self._describe, self.settings = find_models, load, describe, settings
        self.loaded: dict[str, Served] = {}
        self.default = ""
        self._lock = asyncio.Lock()

    async def models(self) -> list[ModelInfo]:
        """What can be asked for, newest first."""
        return await asyncio.to_thread(self._find)

    async def get(self, name: str | None) -> Served:
        """The model of this ref, loaded; without a name the default. Raises ApiError."""
        ref = name or self.default
        if ref in self.loaded:
            return self.loaded[ref]
        async with self._lock:  # one load at a time
            if ref in self.loaded:
                return self.loaded[ref]
            info = self._named(ref, await self.models())
            if info.ref not in self.loaded:
                await self._take(info)
            return self.loaded[info.ref]

    def _named(self, ref: str, models: list[ModelInfo]) -> ModelInfo:
        """The model that `ref` names, wholly or in part; without one the newest."""
        newest = None if ref else default_model(models)
        if newest is not None:
            return newest
        try:
            return find(models, ref)
        except ConfigError as error:
            raise ApiError(404, ascii(str(error)[:400])[1:-1], param="model", code="model_not_found") from None

    async def _take(self, info: ModelInfo) -> None:
        await self._make_room()
        try:
            chats = await asyncio.to_thread(self._load, info)
        except StageError as error:
            text = f"{info.ref} cannot be loaded: {error}. {error.next}".strip()
            raise ApiError(503, text, code=error.code) from None
        except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
            raise ApiError(503, f"{info.ref} cannot be loaded ({type(error).__name__})", code="checkpoint") from None
        served = Served(info, chats, self._describe(chats[0], info), self.settings)
        self.loaded[info.ref] = served
        self.default = self.default or info.ref

    async def _make_room(self) -> None:
        while len(self.loaded) >= self.settings.keep:
            idle = [served for served in self.loaded.values() if not served.busy]
            if not idle:
                raise Busy("every model in memory is answering; try again in a moment", 5, 503)
            oldest = min(idle, key=lambda served: served.used)
            del self.loaded[oldest.info.ref]
            await asyncio.to_thread(oldest.close)
            del oldest, idle
            await asyncio.to_thread(release_memory)

    def close(self) -> None:
        for served in self.loaded.values():
            served.close()


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."

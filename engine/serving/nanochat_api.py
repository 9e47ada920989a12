"""nanochat's web API, so that what was written for its server works with this one: same paths, fields and limits.

A request beyond a limit is refused with 400 and `detail`; a body of another shape with 422. Events of the stream are
{"token", "gpu"} and at last {"done": true}; tool use reaches the client as the literal names of its special tokens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from engine.inference.sampling import Sampling
from engine.serving.answers import Answer, Ended
from engine.serving.errors import ApiError, dumps, json_response
from engine.serving.replica import Replica
from engine.serving.replies import EventStream, merged, sse
from engine.serving.shelf import Served, Shelf

MAX_MESSAGES, MAX_MESSAGE_CHARS, MAX_CHARS = 500, 8000, 32_000
TEMPERATURES, TOP_KS, MAX_TOKENS = (0.0, 2.0), (1, 200), (1, 4096)

router = APIRouter()


class ChatMessage(BaseModel):
    """One turn."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """Unknown fields are ignored."""

    messages: list[ChatMessage]
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None


@router.post("/chat/completions")
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Stream one answer."""
    shelf: Shelf = request.app.state.shelf
    check(body)
    settings = shelf.settings
    sampling = Sampling(settings.temperature if body.temperature is None else body.temperature,
                        settings.top_k if body.top_k is None else body.top_k, None, None)
    served = await shelf.get(None)
    messages = [{"role": message.role, "content": message.content} for message in body.messages]
    answers = await served.ask(messages, [sampling], body.max_tokens or settings.max_tokens, client_of(request),
                               literal=True)
    return EventStream(_events(answers[0], served), answers)


async def _events(answer: Answer, served: Served) -> AsyncIterator[bytes]:
    async for item in merged([answer]):
        if isinstance(item, bytes):
            yield item
        elif not isinstance(item[1], Ended):
            yield sse(dumps({"token": item[1].text, "gpu": 0}))
        elif item[1].finish == "error":
            yield sse(dumps({"error": item[1].message}))
        else:
            served.took(item[1].stats["seconds"])
            yield sse(dumps({"done": True}))


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether answers can be had."""
    replicas = _replicas(request.app.state.shelf)
    free = sum(replica.busy_rows < replica.slots for replica in replicas)
    return json_response({"status": "ok", "ready": bool(replicas), "num_gpus": max(len(replicas), 1),
                          "available_workers": free})


@router.get("/stats")
async def stats(request: Request) -> Response:
    """Which workers there are and how many are free."""
    replicas = _replicas(request.app.state.shelf)
    free = sum(replica.busy_rows < replica.slots for replica in replicas)
    workers = [{"gpu_id": place, "device": str(replica.chat.model.device)} for place, replica in enumerate(replicas)]
    return json_response({"total_workers": len(replicas), "available_workers": free,
                          "busy_workers": len(replicas) - free, "workers": workers})


def _replicas(shelf: Shelf) -> list[Replica]:
    return [replica for served in shelf.loaded.values() for replica in served.replicas]


def client_of(request: Request, user: object = None) -> str:
    """Whose turn in the queue this request takes: an address's, or that of the user it names."""
    return f"{request.client.host if request.client else '?'} {user[:64] if isinstance(user, str) else ''}"


def check(body: ChatRequest) -> None:
    """Refuse what is beyond nanochat's limits. Raises ApiError."""
    if not body.messages:
        raise ApiError(400, "At least one message is required")
    if len(body.messages) > MAX_MESSAGES:
        raise ApiError(400, f"Too many messages: at most {MAX_MESSAGES} per request")
    total = 0
    for place, message in enumerate(body.messages):
        if not message.content:
            raise ApiError(400, f"Message {place} has empty content")
        if len(message.content) > MAX_MESSAGE_CHARS:
            raise ApiError(400, f"Message {place} is too long: at most {MAX_MESSAGE_CHARS} characters")
        if message.role not in ("user", "assistant"):
            raise ApiError(400, f"Message {place} has an invalid role: must be 'user' or 'assistant'")
        total += len(message.content)
    if total > MAX_CHARS:
        raise ApiError(400, f"The conversation is too long: at most {MAX_CHARS} characters in total")
    for name, (low, high) in (("temperature", TEMPERATURES), ("top_k", TOP_KS), ("max_tokens", MAX_TOKENS)):
        value = getattr(body, name)
        if value is not None and not low <= value <= high:
            raise ApiError(400, f"{name} must be between {low} and {high}")

"""OpenAI's chat API as far as a small model can honour it: /v1/models and /v1/chat/completions.

Beyond the standard, which other clients ignore: `tool` in a delta (what the calculator was asked and replied) and
`timings` beside the usage.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from engine.catalog import ModelInfo
from engine.inference.sampling import Sampling
from engine.inference.stream import Piece
from engine.serving.answers import Answer, Ended
from engine.serving.errors import ApiError, dumps, json_response, openai_error
from engine.serving.nanochat_api import client_of
from engine.serving.openai_request import Completion, parse
from engine.serving.replies import EventStream, merged, sse, whole
from engine.serving.shelf import Served, Shelf

router = APIRouter(prefix="/v1")

_REASONS = {"stop": "stop", "length": "length", "context": "length", "cancelled": "stop"}


@router.get("/models")
async def models(request: Request) -> Response:
    """What `model` may be, newest first; the default is the first."""
    shelf: Shelf = request.app.state.shelf
    found = sorted(await shelf.models(), key=lambda model: model.ref != shelf.default)
    return json_response({"object": "list", "data": [_model_row(model, shelf) for model in found]})


@router.get("/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    """One of them."""
    shelf: Shelf = request.app.state.shelf
    for info in await shelf.models():
        if info.ref == name:
            return json_response(_model_row(info, shelf))
    raise ApiError(404, f"there is no model {name[:100]!a}", param="model", code="model_not_found")


def _model_row(info: ModelInfo, shelf: Shelf) -> dict[str, Any]:
    """OpenAI's four fields, then ours."""
    served = shelf.loaded.get(info.ref)
    about = {"name": info.name, "run": info.run_id, "source": info.source, "step": info.step,
             "n_params": info.n_params, "bytes": info.bytes, "val_bpb": info.val_bpb,
             "context": info.config.sequence_len if info.config else None}
    return {"id": info.ref, "object": "model", "created": int(info.created), "owned_by": "llmconsole", **about,
            "loaded": served is not None, **({"memory": served.description, **served.load()} if served else {})}


@router.post("/chat/completions")
async def chat_completions(request: Request) -> Response:
    """Answer, as a stream or whole."""
    shelf: Shelf = request.app.state.shelf
    body = _decoded(await request.body())
    wish = parse(body, shelf.settings)
    served = await shelf.get(wish.model)
    seeds = [None if wish.seed is None else wish.seed + place for place in range(wish.n)]
    samplings = [Sampling(wish.temperature, wish.top_k, wish.top_p, seed) for seed in seeds]
    answers = await served.ask(wish.messages, samplings, wish.max_tokens, client_of(request, body.get("user")),
                               wish.stops)
    head = _Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), served.info.ref)
    if wish.stream:
        return EventStream(_events(answers, served, wish, head), answers)
    found = await whole(request, answers)
    ends = [end for _, end in found]
    for end in ends:
        served.took(end.stats["seconds"])
    choices = [{"index": place, "message": _message(pieces), "finish_reason": _REASONS[end.finish], "logprobs": None}
               for place, (pieces, end) in enumerate(found)]
    return json_response({**head.of("chat.completion"), "choices": choices, "usage": _usage(ends),
                          "timings": ends[0].stats})


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        place = f" (at character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the body is not JSON{place}", code="invalid_json") from None


@dataclass(frozen=True)
class _Head:
    """What every part of a reply repeats."""

    id: str
    created: int
    model: str

    def of(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model,
                "system_fingerprint": None}


async def _events(answers: list[Answer], served: Served, wish: Completion, head: _Head) -> AsyncIterator[bytes]:
    """A chunk per piece; the role first, the reason last, then usage where it was asked for."""
    def chunk(place: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": place, "delta": delta, "finish_reason": reason, "logprobs": None}
        return sse(dumps({**head.of("chat.completion.chunk"), "choices": [choice]}))

    for place in range(len(answers)):
        yield chunk(place, {"role": "assistant", "content": ""})
    ends: list[Ended] = []
    async for item in merged(answers):
        if isinstance(item, bytes):
            yield item
            continue
        place, event = item
        if isinstance(event, Piece):
            yield chunk(place, _delta(event))
        elif event.finish == "error":
            yield sse(dumps(openai_error(ApiError(500, event.message, code="generation_failed"))))
            return
        else:
            ends.append(event)
            served.took(event.stats["seconds"])
            yield chunk(place, {}, _REASONS[event.finish])
    if wish.include_usage:
        yield sse(dumps({**head.of("chat.completion.chunk"), "choices": [], "usage": _usage(ends),
                         "timings": ends[0].stats}))
    yield sse(b"[DONE]")


def _delta(piece: Piece) -> dict[str, Any]:
    return {"content": piece.text} if piece.kind == "text" else {"tool": {"phase": piece.kind, "text": piece.text}}


def _message(pieces: list[Piece]) -> dict[str, Any]:
    tools = [{"phase": piece.kind, "text": piece.text} for piece in pieces if piece.kind != "text"]
    text = "".join(piece.text for piece in pieces if piece.kind == "text")
    return {"role": "assistant", "content": text, "refusal": None, **({"tools": tools} if tools else {})}


def _usage(ends: list[Ended]) -> dict[str, int]:
    """The prompt was read for all choices and counts once."""
    read, written = ends[0].stats["prompt_tokens"], sum(end.stats["completion_tokens"] for end in ends)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

"""A request to /v1/chat/completions, checked field by field: what is served, what is ignored, what is refused and why.

A field that would change the answer and that we cannot honour is refused, never silently dropped. Pure: JSON in,
a value or ApiError out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.serving.errors import ApiError
from engine.settings.serving import Serve

MAX_MESSAGES, MAX_CHARS, MAX_CHOICES, MAX_STOPS, MAX_STOP_CHARS, MAX_TOKENS = 500, 64_000, 8, 4, 64, 4096
_SEEDS = 2**63

# Fields that change what is said, with the values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "functions": (None, []), "function_call": (None, "none"),
    "tool_choice": (None, "none", "auto"),
    "logit_bias": (None, {}), "logprobs": (None, False), "top_logprobs": (None, 0), "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0), "response_format": (None, {"type": "text"}), "modalities": (None, ["text"]),
    "audio": (None,), "prediction": (None,), "web_search_options": (None,),
}
_WHY = {
    "tools": "this model has its own calculator and cannot call tools of yours; leave `tools` out",
    "functions": "this model has its own calculator and cannot call functions of yours; leave `functions` out",
    "response_format": "answers are plain text; leave `response_format` out",
}


@dataclass(frozen=True)
class Completion:
    """What to do."""

    model: str | None
    messages: list[dict[str, Any]]
    temperature: float
    top_k: int
    top_p: float
    seed: int | None
    max_tokens: int
    stops: tuple[str, ...]
    n: int
    stream: bool
    include_usage: bool


def parse(row: Any, settings: Serve) -> Completion:
    """The request in a decoded body. Raises ApiError naming the field."""
    if not isinstance(row, dict):
        raise ApiError(400, "the body must be a JSON object")
    _refuse_unserved(row)
    longest = "max_completion_tokens" if row.get("max_completion_tokens") is not None else "max_tokens"
    seed = None if row.get("seed") is None else int(_number(row, "seed", 0, -_SEEDS, _SEEDS - 1, whole=True))
    options = row.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong("stream_options", "expected an object")
    return Completion(
        _model(row), _messages(row), _number(row, "temperature", settings.temperature, 0, 2),
        int(_number(row, "top_k", settings.top_k, 0, 1_000_000, whole=True)), _number(row, "top_p", 1, 0, 1),
        None if seed is None else seed % _SEEDS,
        int(_number(row, longest, settings.max_tokens, 1, MAX_TOKENS, whole=True)), _stops(row),
        int(_number(row, "n", 1, 1, MAX_CHOICES, whole=True)), _flag(row, "stream"), _flag(options, "include_usage"))


def _refuse_unserved(row: Mapping[str, Any]) -> None:
    for name, harmless in _REFUSED.items():
        if name in row and row[name] not in harmless:
            why = _WHY.get(name, f"`{name}` is not supported by this server; leave it out")
            raise ApiError(400, why, param=name, code="unsupported_parameter")


def _model(row: Mapping[str, Any]) -> str | None:
    name = row.get("model")
    if name is not None and not isinstance(name, str):
        raise _wrong("model", "expected text")
    return name or None


def _messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = row.get("messages")
    if not isinstance(given, list) or not given:
        raise _wrong("messages", "expected a list of at least one message")
    if len(given) > MAX_MESSAGES:
        raise _wrong("messages", f"at most {MAX_MESSAGES} per request")
    messages = [_message(f"messages[{place}]", message) for place, message in enumerate(given)]
    if sum(len(message["content"]) for message in messages) > MAX_CHARS:
        raise ApiError(400, f"messages: at most {MAX_CHARS:,} characters in total", param="messages",
                       code="context_length_exceeded")
    if messages[-1]["role"] != "user":
        raise _wrong(f"messages[{len(given) - 1}].role", "the last message must be the user's")
    return messages


def _message(where: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _wrong(where, "expected an object with role and content")
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise _wrong(f"{where}.role", "must be system, developer, user or assistant")
    if message.get("tool_calls"):
        raise ApiError(400, _WHY["tools"], param=f"{where}.tool_calls", code="unsupported_parameter")
    return {"role": "system" if role == "developer" else role, "content": _text(f"{where}.content", message)}


def _text(where: str, message: Mapping[str, Any]) -> str:
    """A message's text, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise _wrong(where, "only text is understood: {\"type\": \"text\", \"text\": ...}")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise _wrong(where, "expected text that is not empty")
    return content


def _stops(row: Mapping[str, Any]) -> tuple[str, ...]:
    given = row.get("stop")
    stops = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise _wrong("stop", f"expected text or a list of at most {MAX_STOPS} texts")
    if not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise _wrong("stop", f"expected texts of 1 to {MAX_STOP_CHARS} characters")
    return tuple(stops)


def _flag(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "expected true or false")
    return bool(value)


def _number(row: Mapping[str, Any], name: str, default: float, low: float, high: float, *,
            whole: bool = False) -> float:
    value = row.get(name)
    if value is None:
        return default
    right = isinstance(value, int) if whole else isinstance(value, (int, float))
    if not right or isinstance(value, bool) or not low <= value <= high or not math.isfinite(value):
        bounds = f"from {low:g} to {high:g}" if high < _SEEDS - 1 else "of 64 bits"
        raise _wrong(name, f"expected a {'whole ' if whole else ''}number {bounds}")
    return value


def _wrong(where: str, what: str) -> ApiError:
    return ApiError(400, f"{where}: {what}", param=where, code="invalid_value")

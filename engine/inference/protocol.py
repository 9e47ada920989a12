"""The words of the chat worker: requests as they come in on stdin, checked; events as they go out on stdout.

One JSON object per line, in both directions. Nothing here knows what a model is, so a client may import it too.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.config import nearest
from engine.settings.choices import BACKENDS, DEVICES, STORED

VERSION = 1
MAX_LINE = 16 << 20  # bytes of one request
_SEEDS = 2**63


class BadRequest(ValueError):
    """A line on stdin is no request that we know. `id` is the request's own, where it could be read."""

    def __init__(self, text: str, id: str | None = None) -> None:
        super().__init__(text)
        self.id = id


@dataclass(frozen=True)
class Load:
    """Read a checkpoint. `name` is what the client calls the model; it comes back in the `loaded` event."""

    path: Path
    step: int
    tokenizer: Path
    device: str
    dtype: str
    name: str | None
    backend: str = "auto"


@dataclass(frozen=True)
class Generate:
    """Answer a conversation."""

    id: str
    messages: tuple[dict[str, Any], ...]
    temperature: float
    top_k: int
    top_p: float
    seed: int | None
    max_tokens: int


@dataclass(frozen=True)
class Stop:
    """Cancel one answer, waiting or under way; without an id, all of them."""

    id: str | None


@dataclass(frozen=True)
class Unload:
    """Give the model's memory back."""


@dataclass(frozen=True)
class Models:
    """Tell which models there are."""


@dataclass(frozen=True)
class Count:
    """Tell how many tokens a text takes."""

    text: str


@dataclass(frozen=True)
class Quit:
    """Stop what is being done and end the process."""


Request = Load | Generate | Stop | Unload | Models | Count | Quit
_OPS = ("load", "generate", "stop", "unload", "models", "tokens", "quit")


def parse(line: bytes) -> Request:
    """The request in one line. Raises BadRequest saying what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadRequest("not a JSON object")
    op, request_id = row.get("op"), row.get("id")
    try:
        if op == "generate":
            return _generate(row)
        if op == "load":
            return _load(row)
        if op == "stop":
            return Stop(_text(row, "id") if request_id is not None else None)
        if op == "models":
            return Models()
        if op == "tokens":
            return Count(_text(row, "text"))
        if op in ("unload", "quit"):
            return Unload() if op == "unload" else Quit()
        raise BadRequest(f"unknown op {op!r}{nearest(str(op), _OPS)}")
    except BadRequest as error:
        raise BadRequest(str(error), request_id if isinstance(request_id, str) else None) from None


def _load(row: Mapping[str, Any]) -> Load:
    return Load(Path(_text(row, "path")), int(_number(row, "step", None, 0, whole=True)), Path(_text(row, "tokenizer")),
                _text(row, "device", "auto", DEVICES), _text(row, "dtype", "auto", STORED),
                _text(row, "name") if row.get("name") is not None else None,
                _text(row, "backend", "auto", BACKENDS))


def _generate(row: Mapping[str, Any]) -> Generate:
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise BadRequest("messages: expected a list of objects with role and content")
    seed = None if row.get("seed") is None else int(_number(row, "seed", None, 0, _SEEDS - 1, whole=True))
    return Generate(_text(row, "id"), tuple(messages), _number(row, "temperature", 0.8, 0),
                    int(_number(row, "top_k", 50, 0, whole=True)), _number(row, "top_p", 1.0, 0, 1), seed,
                    int(_number(row, "max_tokens", 512, 1, whole=True)))


def _text(row: Mapping[str, Any], name: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
    value = row.get(name, default)
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadRequest(f"{name}: expected text")
    if choices and value not in choices:
        raise BadRequest(f"{name}: {value!r} is not one of {', '.join(choices)}")
    return value


def _number(row: Mapping[str, Any], name: str, default: float | None, low: float, high: float = math.inf, *,
            whole: bool = False) -> float:
    """A number in [low, high], where null and absence mean the default."""
    value = default if row.get(name) is None else row[name]
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high or value == math.inf:
        bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise BadRequest(f"{name}: expected a {'whole ' if whole else ''}number {bounds}")
    return value


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines of an unbuffered stream until it ends; None for one of more than MAX_LINE bytes, which is skipped."""
    held, too_long = bytearray(), False
    while chunk := stream.read(1 << 16):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield None if too_long else bytes(held + line)
            held.clear()
            too_long = False
        held += rest
        if len(held) > MAX_LINE:
            held.clear()
            too_long = True


class Channel:
    """Events to the client, whole lines at once, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event. Raises BrokenPipeError when nobody listens any more."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    def error(self, code: str, message: str, next: str = "", id: str | None = None) -> None:
        """Tell what went wrong and what would help; the worker goes on."""
        self.emit("error", **({"id": id} if id is not None else {}), code=code, message=message, next=next)

"""Plain values over a pipe: frames of JSON, in which tuples, sets and other plain types keep their type.

What arrives may come from a hostile process, so reading it builds plain data and nothing else, of bounded size.
Standard library only: this runs in the supervisor's bare interpreter.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_FRAME = 4 << 20
_SAFE_INT = 1 << 63


class WireError(ValueError):
    """The other side ended, or sent what is no frame."""


def send(fd: int, value: Any) -> None:
    data = json.dumps(value, separators=(",", ":")).encode()
    if len(data) > MAX_FRAME:
        raise WireError(f"{len(data):,} bytes are too many for one answer")
    view = memoryview(struct.pack("<I", len(data)) + data)
    while view:
        view = view[os.write(fd, view):]


def receive(fd: int) -> Any:
    """The next frame. Raises WireError at its end or where it is none."""
    (length,) = struct.unpack("<I", _exactly(fd, 4))
    if length > MAX_FRAME:
        raise WireError("a frame is too long")
    try:
        return json.loads(_exactly(fd, length))
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not JSON: {error}") from error


def _exactly(fd: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(fd, min(count, 1 << 16))
        if not part:
            raise WireError("it ended without an answer")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def pack(value: Any) -> Any:
    """A value as JSON: itself, or {"kind": parts}. A subclass becomes its plain type. Raises WireError."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value) if -_SAFE_INT < value < _SAFE_INT else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    for name, kind in _LISTS.items():
        if isinstance(value, kind):
            packed = [pack(item) for item in value]
            return packed if name == "list" else {name: packed}
    if isinstance(value, dict):
        return {"dict": [[pack(k), pack(v)] for k, v in value.items()]}
    for name, (kind, parts, _) in _OTHERS.items():
        if isinstance(value, kind):
            return {name: parts(value)}
    raise WireError(f"{type(value).__name__} is not plain data")


def unpack(value: Any) -> Any:
    """The inverse of `pack`. Raises WireError."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise WireError("an unknown value")
    [(name, parts)] = value.items()
    try:
        if name == "dict":
            return {unpack(k): unpack(v) for k, v in parts}
        if name in _LISTS:
            return _LISTS[name](unpack(item) for item in parts)
        return _OTHERS[name][2](parts)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise WireError(f"an unknown value: {error}") from error


_LISTS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_OTHERS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "int": (int, hex, lambda text: int(text, 16)),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "complex": (complex, lambda z: [z.real, z.imag], lambda parts: complex(*map(float, parts))),
    "fraction": (Fraction, lambda f: [hex(f.numerator), hex(f.denominator)],
                 lambda parts: Fraction(*(int(p, 16) for p in parts))),
    "decimal": (Decimal, str, Decimal),
    "range": (range, lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
}

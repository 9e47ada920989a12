"""Secrets that cannot slip out: a value that never prints itself, and a filter for whatever is written down.

It knows the shapes of the keys that we handle and every value that was registered; it stores nothing on disk.
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import quote

MASK = "[secret]"
_ACCOUNT_KEYS = ("RUNPOD_API_KEY",)
_SHORTEST = 8  # characters; a shorter value would blank out ordinary words
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|rpa_[A-Za-z0-9]{16,}|sk-(?:or-)?[A-Za-z0-9_-]{16,})"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a command that it starts: all but the key that rents machines, and `more`."""
    return {**{name: value for name, value in os.environ.items() if name not in _ACCOUNT_KEYS}, **(more or {})}


class Secret:
    """A value that shows itself only when asked with `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        redactor.register(value)

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({'…' + self._value[-4:] if len(self._value) > 12 else MASK})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


class Redactor:
    """Takes registered values, in the forms they travel in, and anything shaped like a key out of a text."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._guard = threading.Lock()

    def register(self, value: str) -> None:
        if len(value) < _SHORTEST:
            return
        encoded = base64.b64encode(value.encode()).decode()
        with self._guard:
            self._forms |= {value, quote(value, safe=""), encoded, encoded.rstrip("=")}
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _SHAPES.sub(MASK, text)


redactor = Redactor()

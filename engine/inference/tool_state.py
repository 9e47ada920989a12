"""What a generated row is doing with its calculator: which tokens it wrote into a tool block, which it must write next.

One `ToolState` per row. It sees token ids one by one and never touches the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.tools.calculator import calculate


class ChatTokenizer(Protocol):
    """What inference needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def decode_bytes(self, ids: list[int]) -> bytes: ...

    def encode_special(self, text: str) -> int: ...

    def get_bos_token_id(self) -> int: ...

    def get_special_tokens(self) -> Iterable[str]: ...


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens that steer generation."""

    bos: int
    assistant_end: int
    python_start: int
    python_end: int
    output_start: int
    output_end: int

    @classmethod
    def of(cls, tokenizer: ChatTokenizer) -> SpecialIds:
        names = ("assistant_end", "python_start", "python_end", "output_start", "output_end")
        return cls(tokenizer.get_bos_token_id(), *(tokenizer.encode_special(f"<|{name}|>") for name in names))

    def ends(self, token: int) -> bool:
        """Whether this token finishes a row."""
        return token in (self.assistant_end, self.bos)


class ToolState:
    """Collects what a row writes between python_start and python_end; the result is forced on it afterwards."""

    def __init__(self, tokenizer: ChatTokenizer, special: SpecialIds) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._block: list[int] | None = None  # tokens of the open tool block
        self._forced: deque[int] = deque()

    def next_forced(self) -> int | None:
        """The token that must come next instead of a sampled one, if any."""
        return self._forced.popleft() if self._forced else None

    def observe(self, token: int) -> None:
        """Take note of a token that the row got, sampled or forced."""
        if token == self._special.python_start:
            self._block = []
        elif token == self._special.python_end:
            block, self._block = self._block, None
            if block:
                self._answer(calculate(self._tokenizer.decode(block)))
        elif self._block is not None:
            self._block.append(token)

    def _answer(self, result: str | None) -> None:
        if result is not None:
            ids = self._tokenizer.encode(result)
            self._forced.extend([self._special.output_start, *ids, self._special.output_end])

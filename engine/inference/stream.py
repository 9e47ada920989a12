"""From token ids, as they come, to what a reader sees: answer text in whole characters, tool input, tool output.

Each token is decoded once, so a long answer costs no more per token than a short one.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from engine.inference.tool_state import ChatTokenizer, SpecialIds

Kind = Literal["text", "input", "output"]


@dataclass(frozen=True)
class Piece:
    """Some text of an answer: its visible words, what it asked of the calculator, or what that replied."""

    kind: Kind
    text: str


class AnswerStream:
    """Feed it the tokens of one answer; it gives text as soon as its characters are complete.

    A tool block comes as one piece when it closes. Other special tokens are not text and are left out. Bytes that are
    no UTF-8 read as U+FFFD.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer, special = tokenizer, SpecialIds.of(tokenizer)
        self._special_ids = frozenset(map(tokenizer.encode_special, tokenizer.get_special_tokens()))
        self._opens: dict[int, Kind] = {special.python_start: "input", special.output_start: "output"}
        self._closes: dict[int, Kind] = {special.python_end: "input", special.output_end: "output"}
        self._kind: Kind = "text"
        self._held = ""  # text of an open tool block
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> list[Piece]:
        """The pieces that this token completes: none, one, or two."""
        if token in self._special_ids:
            return self._switch(token)
        text = self._utf8.decode(self._tokenizer.decode_bytes([token]))
        if self._kind != "text":
            self._held += text
            return []
        return [Piece("text", text)] if text else []

    def close(self) -> list[Piece]:
        """What is left when the answer ends: a torn character, an unfinished tool block."""
        text = self._held + self._utf8.decode(b"", final=True)
        kind, self._held, self._kind = self._kind, "", "text"
        return [Piece(kind, text)] if text else []

    def _switch(self, token: int) -> list[Piece]:
        """A special token opens a block or closes the open one; any other leaves the text as it is."""
        if token in self._opens:
            pieces = self.close()
            self._kind = self._opens[token]
            return pieces
        return self.close() if self._closes.get(token) == self._kind else []


class LiteralStream:
    """The same, with special tokens as the text of their names: nanochat's web API shows tool use that way."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> list[Piece]:
        text = self._utf8.decode(self._tokenizer.decode_bytes([token]))
        return [Piece("text", text)] if text else []

    def close(self) -> list[Piece]:
        text = self._utf8.decode(b"", final=True)
        return [Piece("text", text)] if text else []

"""Reads and writes the one kind of pickle that nanochat keeps its tokenizer in, without the pickle module.

A pickle is a program for a small machine that can call any function; a tokenizer needs none of that. This machine knows
the few opcodes that a pickled `tiktoken.Encoding` is made of, builds only dicts, strings, bytes and integers, and calls
nothing: the class is a name to compare, and its state is handed back as a plain dict. What the state means is not known
here (`engine.tokenizer.store`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_BYTES = 16 << 20
MAX_ITEMS = 1 << 20
_MAX_RARE = 10_000  # operations other than texts, numbers and memo: a tokenizer has two per thousand tokens
_MAX_DICTS = 3
ENCODING = ("tiktoken.core", "Encoding")


class PickleError(ValueError):
    """The bytes are not the pickle of one tiktoken.Encoding."""


class _Token:
    """A mark on the machine's stack that no value can equal."""


_MARK, _CLASS, _OBJECT = _Token(), _Token(), _Token()

# opcodes of a pickled Encoding, protocol 4 (5 differs in the version byte only)
PROTO, FRAME, STOP, MEMOIZE, MARK, BUILD = 0x80, 0x95, 0x2E, 0x94, 0x28, 0x62
SHORT_BINUNICODE, SHORT_BINBYTES, BINBYTES = 0x8C, 0x43, 0x42
BININT1, BININT2, BININT = 0x4B, 0x4D, 0x4A
EMPTY_DICT, SETITEMS, EMPTY_TUPLE, STACK_GLOBAL, NEWOBJ = 0x7D, 0x75, 0x29, 0x93, 0x81
BINGET, LONG_BINGET = 0x68, 0x6A

_INTEGERS = {BININT1: 1, BININT2: 2, BININT: 4}    # opcode -> size of the number after it
_TEXTS = {SHORT_BINUNICODE: 1, SHORT_BINBYTES: 1, BINBYTES: 4}  # opcode -> size of the length after it
_INDEXES = {BINGET: 1, LONG_BINGET: 4}


def read_encoding(data: bytes) -> dict[str, Any]:
    """The state of the pickled Encoding as a plain dict. Raises PickleError, and nothing else, on any other bytes."""
    if len(data) > MAX_BYTES:
        raise PickleError(f"{len(data):,} bytes: a tokenizer has at most {MAX_BYTES:,}")
    if data[:1] != bytes([PROTO]) or data[1:2] not in (b"\x04", b"\x05"):
        raise PickleError("not a pickle of protocol 4 or 5")
    return _Machine(data).run()


class _Machine:
    """The pickle machine, cut down: a stack, a memo, and no way to call anything."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 2
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.state: dict[str, Any] | None = None
        self.rare = self.dicts = 0
        self.operations: dict[int, Callable[[], None]] = {
            FRAME: self._frame, MARK: lambda: self.stack.append(_MARK), EMPTY_DICT: self._empty_dict,
            EMPTY_TUPLE: lambda: self.stack.append(()), STACK_GLOBAL: self._global, NEWOBJ: self._new_object,
            SETITEMS: self._set_items, BUILD: self._build,
        }

    def run(self) -> dict[str, Any]:
        """The loop holds what occurs once per token; the rest is looked up."""
        data, stack, memo = self.data, self.stack, self.memo
        end, push, remember, at = len(data), stack.append, memo.append, self.at
        while at < end:
            opcode = data[at]
            at += 1
            if opcode == MEMOIZE:
                if not stack or len(memo) >= MAX_ITEMS:
                    raise PickleError(f"cannot remember a value at byte {at - 1}")
                remember(stack[-1])
            elif opcode in _INTEGERS:
                size = _INTEGERS[opcode]
                push(int.from_bytes(data[at : at + size], "little", signed=opcode == BININT))
                at += size
            elif opcode in _TEXTS:
                start = at + _TEXTS[opcode]
                at = start + int.from_bytes(data[at:start], "little")
                push(data[start:at] if opcode != SHORT_BINUNICODE else self._text(data[start:at]))
            elif opcode in _INDEXES:
                size = _INDEXES[opcode]
                push(self._recall(int.from_bytes(data[at : at + size], "little")))
                at += size
            elif opcode == STOP:
                return self._result(at)
            else:
                self.at = at
                self._operation(opcode)
                at = self.at
        raise PickleError("the file ends in the middle")

    def _operation(self, opcode: int) -> None:
        operation = self.operations.get(opcode)
        if operation is None:
            raise PickleError(f"operation 0x{opcode:02x} at byte {self.at - 1} has no place in a tokenizer")
        self.rare += 1
        if self.rare > _MAX_RARE:
            raise PickleError("more operations than a tokenizer needs")
        operation()

    def _empty_dict(self) -> None:
        self.dicts += 1
        if self.dicts > _MAX_DICTS:
            raise PickleError("more dicts than a tokenizer has")
        self.stack.append({})

    def _frame(self) -> None:
        length = int.from_bytes(self.data[self.at : self.at + 8], "little")
        self.at += 8
        if length > len(self.data) - self.at:
            raise PickleError("a frame is longer than the file")

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise PickleError("a string is not UTF-8") from None

    def _recall(self, index: int) -> Any:
        if index >= len(self.memo) or not isinstance(self.memo[index], (str, bytes)):
            raise PickleError(f"memo entry {index} is not a text")
        return self.memo[index]

    def _pop(self, *kinds: type) -> list[Any]:
        """The topmost values, the last one topmost, of exactly these types."""
        values = self.stack[len(self.stack) - len(kinds) :] if len(self.stack) >= len(kinds) else []
        if [type(v) for v in values] != list(kinds):
            raise PickleError(f"unexpected values before byte {self.at - 1}")
        del self.stack[len(self.stack) - len(kinds) :]
        return values

    def _global(self) -> None:
        if tuple(self._pop(str, str)) != ENCODING:
            raise PickleError("it names something else than tiktoken.core.Encoding")
        self.stack.append(_CLASS)

    def _new_object(self) -> None:
        cls, _ = self._pop(_Token, tuple)
        if cls is not _CLASS:
            raise PickleError("it creates something that is no class")
        self.stack.append(_OBJECT)

    def _set_items(self) -> None:
        if _MARK not in self.stack:
            raise PickleError(f"items without a mark before byte {self.at - 1}")
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        target = self.stack[start - 1] if start > 0 else None
        items = self.stack[start + 1 :]
        if type(target) is not dict or len(items) % 2:
            raise PickleError(f"items without a dict before byte {self.at - 1}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes) or type(value) not in (str, int, dict) or key in target:
                raise PickleError("a dict has a key twice, or something else than texts and numbers")
            target[key] = value
        if len(target) > MAX_ITEMS:
            raise PickleError(f"more than {MAX_ITEMS:,} items")
        del self.stack[start:]

    def _build(self) -> None:
        target, state = self._pop(_Token, dict)
        if target is not _OBJECT or self.state is not None:
            raise PickleError("it sets the state of something else than one Encoding")
        self.state = state
        self.stack.append(_OBJECT)

    def _result(self, at: int) -> dict[str, Any]:
        if at != len(self.data):
            raise PickleError("bytes follow the end of the pickle")
        if self.stack != [_OBJECT] or self.state is None:
            raise PickleError("it is not one Encoding")
        return self.state


def write_encoding(state: Mapping[str, Any]) -> bytes:
    """The bytes that `pickle.dumps(encoding, protocol=4)` gives for an Encoding with this state."""
    writer = _Writer()
    for name in ENCODING:
        writer.value(name)
    writer.operation(STACK_GLOBAL, MEMOIZE)
    writer.boundary()
    writer.operation(EMPTY_TUPLE, NEWOBJ, MEMOIZE)
    writer.value(state)
    writer.operation(BUILD, STOP)
    return bytes([PROTO, 4]) + writer.finish()


class _Writer:
    """Writes values the way CPython does, which starts a new frame at the first value past 64 KiB."""

    _FRAME_BYTES = 64 << 10
    _BATCH = 1000

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.frame = bytearray()

    def boundary(self) -> None:
        if len(self.frame) >= self._FRAME_BYTES:
            self.finish()

    def finish(self) -> bytes:
        self.frames.append(bytes([FRAME]) + len(self.frame).to_bytes(8, "little") + self.frame)
        self.frame = bytearray()
        return b"".join(self.frames)

    def operation(self, *opcodes: int) -> None:
        self.frame += bytes(opcodes)

    def value(self, value: Any) -> None:
        self.boundary()
        if isinstance(value, Mapping):
            self._dict(value)
        elif isinstance(value, int):
            self._integer(value)
        else:
            self._raw(value)

    def _raw(self, value: str | bytes) -> None:
        raw = value.encode() if isinstance(value, str) else value
        if len(raw) < 256:
            self.operation(SHORT_BINUNICODE if isinstance(value, str) else SHORT_BINBYTES, len(raw))
        elif isinstance(value, bytes):
            self.operation(BINBYTES, *len(raw).to_bytes(4, "little"))
        else:
            raise PickleError(f"a string of {len(raw)} bytes: at most 255 are written")
        self.frame += raw
        self.operation(MEMOIZE)

    def _integer(self, value: int) -> None:
        opcode = BININT1 if value < 1 << 8 else BININT2 if value < 1 << 16 else BININT
        self.operation(opcode, *value.to_bytes(_INTEGERS[opcode], "little"))

    def _dict(self, values: Mapping[Any, Any]) -> None:
        """CPython ends the batches with one that is not full, even if that one is empty."""
        self.operation(EMPTY_DICT, MEMOIZE)
        items = list(values.items())
        for start in range(0, len(items) + 1, self._BATCH):
            self.operation(MARK)
            for key, value in items[start : start + self._BATCH]:
                self.value(key)
                self.value(value)
            self.operation(SETITEMS)

"""A log of any size as numbered lines, read by offset and only where somebody looks.

The index is one number per 64 KiB of file: a million lines cost a few kilobytes, and opening at the end one read.
It knows no widget and no run; what it returns is foreign text, cleaned and cut to what one line can hold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from console.text import clean

CHUNK = 1 << 16
LINE_BYTES = 4096  # this much of a line is looked at
LINE_CELLS = 1000  # this much of it is shown
_CACHED_CHUNKS = 64


class ByteSource(Protocol):
    """Something that grows at its end: a local file now, a file on another machine later."""

    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class FileSource:
    """A local file; a missing one is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, offset: int, length: int) -> bytes:
        try:
            with open(self.path, "rb") as f:
                f.seek(offset)
                return f.read(length)
        except FileNotFoundError:
            return b""


class LogFile:
    """Lines 0, 1, 2, ... of a growing file. `refresh` learns what was appended; a shortened file is read anew."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._forget()

    def _forget(self) -> None:
        self._newlines = [0]  # [i]: newlines before byte i * CHUNK; the last entry is also the count so far
        self._size = 0
        self._tail = b""  # bytes of the unfinished last chunk
        self._cache: OrderedDict[int, list[bytes]] = OrderedDict()
        self.generation = getattr(self, "generation", -1) + 1

    def refresh(self, budget: int = 1 << 26) -> bool:
        """Index at most `budget` bytes more; True when there was anything new."""
        size = self._source.size()
        if size < self._size:
            self._forget()
        start = self._size
        while self._size < size and self._size - start < budget:
            data = self._source.read(self._size, CHUNK - len(self._tail))
            if not data:
                break
            self._append(data)
        return self._size != start

    def _append(self, data: bytes) -> None:
        chunk = self._size // CHUNK
        self._cache.pop(chunk, None)
        self._tail += data
        self._size += len(data)
        count = self._newlines[chunk] + self._tail.count(b"\n")
        del self._newlines[chunk + 1:]
        self._newlines.append(count)
        if len(self._tail) == CHUNK:
            self._tail = b""
        self._ended = data.endswith(b"\n")

    @property
    def size(self) -> int:
        return self._size

    def __len__(self) -> int:
        """Lines, an unfinished last one included."""
        return 0 if not self._size else self._newlines[-1] + (not self._ended)

    def line(self, number: int) -> str:
        """Line `number` cleaned, tabs expanded, at most LINE_CELLS characters and a mark for what is left out."""
        head, length = self.raw(number)
        text = clean(head.decode("utf-8", "replace")).expandtabs(8).replace("\n", " ")
        hidden = length - LINE_BYTES
        if len(text) > LINE_CELLS or hidden > 0:
            more = max(len(text) - LINE_CELLS, 0) + max(hidden, 0)
            return f"{text[:LINE_CELLS]} … +{more:,} more characters"
        return text

    def raw(self, number: int) -> tuple[bytes, int]:
        """The first LINE_BYTES of a line without its newline, and the line's whole length in bytes.

        Of a long line that redraws itself with carriage returns the last LINE_BYTES are returned: what it shows now.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        chunk = 0 if number == 0 else bisect_left(self._newlines, number) - 1
        pieces = self._pieces(chunk)
        index = number - self._newlines[chunk]
        head = pieces[index]
        if index + 1 < len(pieces):
            return self._cut(head, len(head), head)
        return self._continued(head, chunk + 1)

    def _continued(self, head: bytes, chunk: int) -> tuple[bytes, int]:
        """A line that goes on after its chunk."""
        length, tail = len(head), head
        last = len(self._newlines) - 1
        while chunk < last and self._newlines[chunk + 1] == self._newlines[chunk]:
            if len(head) < LINE_BYTES:
                head += self._pieces(chunk)[0][:LINE_BYTES]
            length += min(CHUNK, self._size - chunk * CHUNK)
            chunk += 1
        if b"\r" in head and length > LINE_BYTES and chunk > 0:
            tail = self._pieces(chunk - 1)[-1][-LINE_BYTES:]
        if chunk < last:
            piece = self._pieces(chunk)[0]
            head, length, tail = head + piece[:LINE_BYTES], length + len(piece), tail + piece
        return self._cut(head, length, tail)

    @staticmethod
    def _cut(head: bytes, length: int, tail: bytes) -> tuple[bytes, int]:
        if length > LINE_BYTES and b"\r" in head[:LINE_BYTES]:
            shown = tail.rstrip(b"\r").rpartition(b"\r")[2][:LINE_BYTES]
            return shown, len(shown)
        return head[:LINE_BYTES], length

    def _pieces(self, chunk: int) -> list[bytes]:
        if chunk in self._cache:
            self._cache.move_to_end(chunk)
            return self._cache[chunk]
        length = min(CHUNK, self._size - chunk * CHUNK)
        pieces = self._source.read(chunk * CHUNK, length).split(b"\n")
        expected = self._newlines[chunk + 1] - self._newlines[chunk] + 1
        pieces = pieces[:expected] + [b""] * (expected - len(pieces))  # the file was changed under us: stay in step
        self._cache[chunk] = pieces
        while len(self._cache) > _CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return pieces

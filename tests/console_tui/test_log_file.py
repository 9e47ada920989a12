"""The log index gives exactly the lines that a plain split gives, whatever the file looks like and however it grows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.log_file import CHUNK, LINE_BYTES, LINE_CELLS, FileSource, LogFile


class Memory:
    def __init__(self) -> None:
        self.data = b""

    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


PIECE = st.one_of(
    st.binary(max_size=40).filter(lambda b: b"\r" not in b),
    st.just(b"\n"),
    st.just(b"line\n"),
    st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1000]).map(lambda n: b"x" * n),
    st.sampled_from([10, CHUNK // 8]).map(lambda n: b"some line\n" * n),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECE, max_size=8))
def test_lines_equal_a_plain_split_while_the_file_grows(pieces: list[bytes]) -> None:
    memory = Memory()
    log = LogFile(memory)
    for piece in pieces:
        memory.data += piece
        log.refresh()
        expected = memory.data.split(b"\n")
        if expected[-1] == b"":
            expected.pop()
        assert len(log) == len(expected)
        for number in {0, 1, len(expected) // 2, len(expected) - 2, len(expected) - 1} & set(range(len(expected))):
            head, length = log.raw(number)
            assert head == expected[number][:LINE_BYTES]
            assert length == len(expected[number])


def test_progress_bar_lines_show_their_newest_state() -> None:
    memory = Memory()
    memory.data = b"".join(b"%d%%|####\r" % (i % 100) for i in range(40_000)) + b"done 100%\nnext\n"
    log = LogFile(memory)
    log.refresh()
    assert [log.line(0), log.line(1)] == ["done 100%", "next"]


def test_a_megabyte_line_is_cut_with_a_mark_and_stays_cheap() -> None:
    memory = Memory()
    memory.data = b"before\n" + b"y" * (1 << 20) + b"\nafter\n"
    log = LogFile(memory)
    log.refresh()
    start = time.perf_counter()
    text = log.line(1)
    assert time.perf_counter() - start < 0.02
    assert text.startswith("y" * LINE_CELLS + " … +") and text.endswith("more characters")
    assert int(text.split("+")[1].split()[0].replace(",", "")) == (1 << 20) - LINE_CELLS
    assert (log.line(0), log.line(2)) == ("before", "after")


def test_a_shortened_file_is_read_anew_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(FileSource(path))
    assert not log.refresh() and len(log) == 0
    path.write_bytes(b"one\ntwo\nthree")
    assert log.refresh() and [log.line(i) for i in range(len(log))] == ["one", "two", "three"]
    path.write_bytes(b"1\n")
    log.refresh()
    assert [log.line(i) for i in range(len(log))] == ["1"]


def test_hostile_lines_come_out_clean() -> None:
    memory = Memory()
    memory.data = b"\x1b]0;title\x07[red]a\x1b[31m\tb\xff\xfe\x00\n"
    log = LogFile(memory)
    log.refresh()
    assert log.line(0) == "[red]a  b\ufffd\ufffd"


def test_a_million_lines_open_within_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"step 04869/08000 | loss 2.4267 | lrm 0.84 | dt 479ms | tok/s 1,097,642 | mfu 48.3\n"
    path.write_bytes(line * 1_000_000)
    log = LogFile(FileSource(path))
    start = time.perf_counter()
    log.refresh(budget=1 << 30)
    assert len(log) == 1_000_000
    assert log.line(999_999).startswith("step 04869")
    seconds = time.perf_counter() - start
    assert seconds < 0.6  # 0.1 s on an idle machine; the file itself is 80 MB
    with pytest.raises(IndexError):
        log.line(1_000_000)

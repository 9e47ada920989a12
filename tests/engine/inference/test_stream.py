"""Streaming text: whole characters only, tool blocks apart, and never more work for a longer answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.stream import AnswerStream, Piece


@pytest.fixture(scope="module")
def tokenizer():
    from engine.tokenizer.bpe import Tokenizer
    from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary

    specials = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))


def pieces(tokenizer, *parts: str | bytes) -> list[Piece]:
    """Everything said for these parts, where a str is a special token's name."""
    stream, said = AnswerStream(tokenizer), []
    for part in parts:
        for token in [tokenizer.encode_special(f"<|{part}|>")] if isinstance(part, str) else part:
            said += stream.push(token)
    return said + stream.close()


def test_characters_come_whole(tokenizer) -> None:
    stream = AnswerStream(tokenizer)
    said = [[p.text for p in stream.push(byte)] for byte in "aé🙂".encode()]
    assert said == [["a"], [], ["é"], [], [], [], ["🙂"]]
    assert stream.close() == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=50))
def test_any_text_comes_back(tokenizer, text: str) -> None:
    data = text.encode(errors="replace")
    assert "".join(p.text for p in pieces(tokenizer, data)) == data.decode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50))
def test_any_bytes_read_as_python_reads_them(tokenizer, data: bytes) -> None:
    assert "".join(p.text for p in pieces(tokenizer, data)) == data.decode(errors="replace")


def test_a_tool_block_is_apart(tokenizer) -> None:
    said = pieces(tokenizer, b"so ", "python_start", b"2+3", "python_end", "output_start", b"5", "output_end", b" it")
    assert "".join(p.text for p in said if p.kind == "text") == "so  it"
    assert [p for p in said if p.kind != "text"] == [Piece("input", "2+3"), Piece("output", "5")]
    assert said[3] == Piece("input", "2+3"), "in its place between the words"


def test_unfinished_and_unopened_blocks(tokenizer) -> None:
    assert pieces(tokenizer, b"a", "python_start", b"2+") == [Piece("text", "a"), Piece("input", "2+")]
    assert pieces(tokenizer, "python_end", b"a", "output_end") == [Piece("text", "a")]
    assert pieces(tokenizer, "python_start", b"1", "output_start", b"2", "output_end") == [
        Piece("input", "1"), Piece("output", "2")]
    assert pieces(tokenizer, "output_start", b"1", "python_end", b"2", "output_end") == [Piece("output", "12")]
    assert pieces(tokenizer, "python_start", "python_end") == []
    assert pieces(tokenizer, b"\xc3", "python_start", b"1", "python_end") == [
        Piece("text", "\ufffd"), Piece("input", "1")]


def test_other_special_tokens_are_not_text(tokenizer) -> None:
    assert [p.text for p in pieces(tokenizer, b"a", "user_start", b"b", "assistant_start", b"c")] == ["a", "b", "c"]

"""rustbpe encodes as tiktoken does with the same vocabulary, and decodes what it encoded."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe


@pytest.fixture(scope="module")
def trained(slow_bpe: SimpleNamespace, prose: list[str]) -> rustbpe.Tokenizer:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator([*prose, "aaaa aaab abab   \n\n  12 34 'll"] * 3, 600, pattern=slow_bpe.pattern)
    return tokenizer


@pytest.fixture(scope="module")
def same_in_tiktoken(trained: rustbpe.Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding("t", pat_str=trained.get_pattern(), mergeable_ranks=dict(trained.get_mergeable_ranks()),
                             special_tokens={})


pieces = st.one_of(st.text(max_size=30), st.text(alphabet="ab ", max_size=200),
                   st.text(alphabet=" \t\n\r\x0b\x85\xa0\u3000\x1c", max_size=30),
                   st.text(alphabet="09٣४²½'sSſ", max_size=30),
                   st.sampled_from(["theing", "karimo", "日", " stonpla", "'ll", "'LL"]))


@settings(max_examples=300, deadline=None)
@given(text=st.lists(pieces, max_size=6).map("".join))
def test_equals_tiktoken_and_comes_back(trained: rustbpe.Tokenizer, same_in_tiktoken: tiktoken.Encoding,
                                        text: str) -> None:
    ids = trained.encode(text)
    assert ids == same_in_tiktoken.encode_ordinary(text)
    assert trained.decode(ids) == text


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_equals_tiktoken_on_texts_drawn_from_the_vocabulary(
        trained: rustbpe.Tokenizer, same_in_tiktoken: tiktoken.Encoding, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.integers(0, trained.vocab_size - 1), max_size=60))
    text = trained.decode(drawn)
    assert trained.encode(text) == same_in_tiktoken.encode_ordinary(text)


def test_batch_equals_single(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    batch = ["", *prose, "a"]
    assert trained.batch_encode(batch) == [trained.encode(text) for text in batch]
    assert trained.batch_encode([]) == []


def test_an_untrained_one_knows_bytes() -> None:
    tokenizer = rustbpe.Tokenizer()
    assert tokenizer.encode("é\0") == [0xC3, 0xA9, 0]
    assert tokenizer.vocab_size == 256
    assert r"\p{N}{1,3}" in tokenizer.get_pattern()


def test_decode_replaces_half_characters_and_refuses_unknown_ids(trained: rustbpe.Tokenizer) -> None:
    assert trained.decode([0xC3]) == "\ufffd"
    with pytest.raises(ValueError, match=f"unknown token id {trained.vocab_size}"):
        trained.decode([65, trained.vocab_size])
    with pytest.raises(OverflowError):
        trained.decode([-1])


def test_one_long_chunk_takes_no_quadratic_time(trained: rustbpe.Tokenizer,
                                                same_in_tiktoken: tiktoken.Encoding) -> None:
    text = "a" * 300_000
    started = time.monotonic()
    assert trained.encode(text) == same_in_tiktoken.encode_ordinary(text)
    assert time.monotonic() - started < 10


def test_a_run_of_white_space_that_the_pattern_cannot_take_is_an_error(trained: rustbpe.Tokenizer) -> None:
    with pytest.raises(ValueError, match="failed on a text"):
        trained.encode(" " * 5_000_000)


def test_encoding_goes_on_while_another_thread_trains(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    shared = rustbpe.Tokenizer()
    thread = threading.Thread(target=shared.train_from_iterator, args=(prose * 100, 1000))
    thread.start()
    while thread.is_alive():
        assert shared.decode(shared.encode("the karimo")) == "the karimo"
    thread.join()
    assert shared.vocab_size > 256

"""rustbpe encodes as tiktoken does with the same vocabulary, and decodes what it encoded."""

from __future__ import annotations

import gc
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
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


long_pieces = st.one_of(pieces, st.sampled_from([
    "a" * 70, " " * 65, "\n" * 63, "\n" + " " * 64, "\n \n" * 25, "'" * 66, "don't " * 12, "1234567 " * 9,
    "x.\n\n" * 20,
    "é" * 40, "日本語" * 15, "🙂'ſ" * 10, "\xa0 " * 20, "٣٤" * 20, "\u2028\r\n\t" * 15, "()[]{};\n    " * 8]))


@settings(max_examples=300, deadline=None)
@given(text=st.lists(long_pieces, max_size=12).map("".join))
def test_equals_tiktoken_where_64_bytes_end_anywhere(trained: rustbpe.Tokenizer, same_in_tiktoken: tiktoken.Encoding,
                                                     text: str) -> None:
    assert trained.encode(text) == same_in_tiktoken.encode_ordinary(text)


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
    assert trained.encode(text) == same_in_tiktoken.encode_ordinary(text)
    text = "a" * 1_000_000
    started = time.monotonic()
    ids = trained.encode(text)
    assert time.monotonic() - started < 10
    assert trained.decode(ids) == text


def test_small_ids_take_half_the_memory(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    ids, offsets = trained.encode_flat(prose, [7], threads=2)
    small, same_offsets = trained.encode_flat(prose, [7], threads=2, small=True)
    assert small.dtype == np.uint16 and small.tolist() == ids.tolist()
    assert same_offsets.tolist() == offsets.tolist()
    with pytest.raises(ValueError, match="id 65536 does not fit into 16 bits"):
        trained.encode_flat(prose, [65536], small=True)


def test_arrays_outlive_what_made_them(prose: list[str]) -> None:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(prose, 400)
    ids, offsets = tokenizer.encode_flat(prose)
    expected = tokenizer.encode(prose[3])
    del tokenizer
    gc.collect()
    assert ids[offsets[3] : offsets[4]].tolist() == expected


@pytest.mark.parametrize("run", [" ", "\n", "\u3000", "'", "9", "\t \n"])
def test_a_run_that_tiktoken_cannot_take(trained: rustbpe.Tokenizer, run: str) -> None:
    text = "a" + run * (3_000_000 // len(run)) + "b"
    assert trained.decode(trained.encode(text)) == text


def test_flat_is_the_lists_in_a_row(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    texts = ["", *prose, "a", "", "a" * 1000] * 20
    for threads in (None, 1, 3):
        ids, offsets = trained.encode_flat(texts, [7], [8, 9], threads)
        assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
        assert ids.flags.writeable
        rows = [ids[start:end].tolist() for start, end in pairwise(offsets)]
        assert rows == [[7, *trained.encode(text), 8, 9] for text in texts]
    ids, offsets = trained.encode_flat([])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


def test_a_batch_names_what_is_no_text(trained: rustbpe.Tokenizer) -> None:
    for encode in (trained.batch_encode, trained.encode_flat):
        with pytest.raises(TypeError, match=r"item 1 of the list .*int"):
            encode(["a", 1])
        with pytest.raises(UnicodeEncodeError, match="surrogate"):
            encode(["a", "\ud800"])
    with pytest.raises(ValueError, match="threads is 0"):
        trained.encode_flat(["a"], threads=0)


def test_known_ranks_make_the_same_tokenizer(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    again = rustbpe.Tokenizer.from_ranks(trained.get_pattern(), trained.get_mergeable_ranks())
    assert again.get_mergeable_ranks() == trained.get_mergeable_ranks()
    assert again.batch_encode(prose) == trained.batch_encode(prose)


singles = [(bytes([i]), i) for i in range(256)]


@pytest.mark.parametrize(("ranks", "words"), [
    (singles[1:], "item 0 .* id 0"),
    (singles[:-1], "single byte 255"),
    ([*singles, (b"ab", 257)], "item 256 .* id 256"),
    ([*singles, (b"a", 256)], "tokens 97 and 256"),
    ([*singles, (b"", 256)], "token 256 has no bytes"),
])
def test_refuses_ranks_that_are_no_vocabulary(ranks: list[tuple[bytes, int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rustbpe.Tokenizer.from_ranks(r"\w+", ranks)


@settings(max_examples=100, deadline=None)
@given(learned=st.lists(st.text(alphabet="ab ", min_size=2, max_size=6), unique=True, max_size=30),
       text=st.text(alphabet="ab ", max_size=150))
def test_any_ranks_encode_as_in_tiktoken(slow_bpe: SimpleNamespace, learned: list[str], text: str) -> None:
    """Also tokens that no training would make: without parts, or in an order that hides them."""
    ranks = [*singles, *((token.encode(), 256 + i) for i, token in enumerate(learned))]
    theirs = tiktoken.Encoding("t", pat_str=slow_bpe.pattern, mergeable_ranks=dict(ranks), special_tokens={})
    assert rustbpe.Tokenizer.from_ranks(slow_bpe.pattern, ranks).encode(text) == theirs.encode_ordinary(text)


def test_encoding_goes_on_while_another_thread_trains(trained: rustbpe.Tokenizer, prose: list[str]) -> None:
    shared = rustbpe.Tokenizer()
    thread = threading.Thread(target=shared.train_from_iterator, args=(prose * 100, 1000))
    thread.start()
    while thread.is_alive():
        assert shared.decode(shared.encode("the karimo")) == "the karimo"
    thread.join()
    assert shared.vocab_size > 256

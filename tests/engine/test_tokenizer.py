"""The tokenizer gives nanochat's ids, comes back from disk as it was, and never mistakes text for a special token."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer import bpe
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS, TokenizerError

FOLDER = Path(__file__).parents[1] / "fixtures" / "tokenizer"
UPSTREAM: dict[str, Any] = json.loads((FOLDER / "conversations.json").read_bytes())
TEXTS = ["the cat sat on the mat " * 20, "naïve café, 日本語 🙂 don't I'LL 12345\n\n  x = {'a': 1}\n" * 10]


@pytest.fixture(scope="module")
def upstream() -> Tokenizer:
    return Tokenizer.from_directory(FOLDER)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.train_from_iterator(iter(TEXTS), 300)


@pytest.mark.parametrize("case", UPSTREAM["encode"], ids=lambda case: repr(case["text"])[:20])
def test_gives_the_ids_of_nanochat(upstream: Tokenizer, case: dict[str, Any]) -> None:
    assert upstream.encode(case["text"]) == case["ids"]
    assert upstream.encode(case["text"], prepend="<|bos|>") == case["bos"]
    assert upstream.encode([case["text"]] * 2, prepend=upstream.get_bos_token_id()) == [case["bos"]] * 2
    assert upstream.decode(case["ids"]) == case["text"]


def test_special_tokens_are_those_of_nanochat(upstream: Tokenizer) -> None:
    assert upstream.get_vocab_size() == UPSTREAM["vocab_size"] == 1024
    assert upstream.get_special_tokens() == set(SPECIAL_TOKENS) == set(UPSTREAM["special_tokens"])
    assert {name: upstream.encode_special(name) for name in SPECIAL_TOKENS} == UPSTREAM["special_tokens"]
    assert upstream.id_to_token(upstream.get_bos_token_id()) == "<|bos|>"


def test_token_bytes_equal_those_of_todays_nanochat(upstream: Tokenizer) -> None:
    expected = torch.load(FOLDER / "token_bytes_head.pt", weights_only=True)
    assert upstream.token_bytes_lengths() == expected.tolist()


def test_token_bytes_of_the_seed_differ_only_where_a_token_is_no_text(upstream: Tokenizer) -> None:
    """The seed counted U+FFFD, three bytes, for each piece of a character."""
    expected = torch.load(FOLDER / "token_bytes_seed.pt", weights_only=True).tolist()
    ours = upstream.token_bytes_lengths()
    ordinary = range(len(upstream.vocabulary.ranks))
    assert [len(upstream.decode([i]).encode()) for i in ordinary] == expected[: len(ordinary)]
    assert {i for i in ordinary if ours[i] != expected[i]} == {i for i in ordinary if "\ufffd" in upstream.decode([i])}
    assert ours[len(ordinary):] == expected[len(ordinary):] == [0] * 9


def test_comes_back_from_disk(small: Tokenizer, tmp_path: Path) -> None:
    pickle_path, bytes_path = small.save(tmp_path / "tokenizer")
    again = Tokenizer.from_directory(tmp_path / "tokenizer")
    assert again.vocabulary == small.vocabulary
    assert again.sha256() == small.sha256()
    assert again.encode(TEXTS[1]) == small.encode(TEXTS[1])
    stored = torch.load(bytes_path, weights_only=True)
    assert stored.dtype == torch.int32
    assert stored.tolist() == small.token_bytes_lengths()
    names = sorted(p.name for p in pickle_path.parent.iterdir())
    assert names == ["token_bytes.pt", "tokenizer.json", "tokenizer.pkl"]


def test_vocabulary_counts_the_special_tokens(small: Tokenizer) -> None:
    assert small.get_vocab_size() == 300
    assert [small.encode_special(name) for name in SPECIAL_TOKENS] == list(range(291, 300))
    tiny = Tokenizer.train_from_iterator(["ab"], 256 + 9)
    assert tiny.get_vocab_size() == 265
    with pytest.raises(ValueError, match="at least 256"):
        Tokenizer.train_from_iterator(["ab"], 264)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80) | st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "<|", "|>"])).map("".join))
def test_text_never_becomes_a_special_token(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert all(i < small.get_bos_token_id() for i in ids)
    assert small.decode(ids) == text
    assert small.decode_bytes(ids) == text.encode()
    lengths = small.token_bytes_lengths()
    assert sum(lengths[i] for i in ids) == len(text.encode())


def test_prepend_and_append(small: Tokenizer) -> None:
    bos, end = small.encode_special("<|bos|>"), small.encode_special("<|user_end|>")
    plain = small.encode("hello")
    assert small.encode("hello", prepend="<|bos|>", append="<|user_end|>") == [bos, *plain, end]
    assert small.encode("hello", prepend=bos, append=end) == [bos, *plain, end]
    assert small.encode(["", "hello"], prepend=0) == [[0], [0, *plain]]
    assert small.encode([]) == []
    with pytest.raises(KeyError):
        small.encode("x", prepend="<|nonsense|>")


def test_batch_equals_single(small: Tokenizer) -> None:
    batch = [*TEXTS, "", "a"]
    assert small.encode(batch) == small.encode(batch, num_threads=1) == [small.encode(t) for t in batch]


def test_flat_is_the_lists_in_a_row(small: Tokenizer) -> None:
    batch = [*TEXTS, "", "a\ud800b"]
    ids, offsets = small.encode_flat(batch, prepend="<|bos|>")
    rows = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
    assert rows == small.encode(batch, prepend="<|bos|>") == [small.encode(t, prepend="<|bos|>") for t in batch]


@pytest.mark.parametrize("run", [" ", "\n", "\t \n", "\u3000"])
def test_a_run_of_white_space_that_tiktoken_cannot_take(small: Tokenizer, run: str) -> None:
    text = "a" + run * (2_500_000 // len(run)) + "b"
    assert small.decode(small.encode(text)) == text
    assert small.encode([text, "ab"])[1] == small.encode("ab")


@pytest.mark.parametrize("limit", [0, 10_000])
def test_who_encodes_does_not_matter(small: Tokenizer, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(bpe, "_SHORT", limit)
    text = TEXTS[0] + " " * 49 + TEXTS[1] + "\n" * 50 + "x"
    whole = tiktoken.Encoding("t", pat_str=small.vocabulary.pattern, mergeable_ranks=small.vocabulary.ranks,
                              special_tokens={})
    assert small.encode(text) == whole.encode_ordinary(text)


def test_lone_surrogates_do_not_stop_it(small: Tokenizer) -> None:
    assert small.decode(small.encode("a\ud800b")) == "a\ufffdb"
    assert small.decode(small.encode("a\ud800b" * 9000)) == "a\ufffdb" * 9000


def test_says_which_file_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.pkl").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(TokenizerError, match=r"tokenizer\.pkl is not a nanochat tokenizer: operation 0x63 at byte 2"):
        Tokenizer.from_directory(tmp_path)

"""tokenizer.json: their library gives our ids with ours, ours gives theirs with theirs, and nothing else is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.huggingface import read_json, write_json
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, TokenizerError, Vocabulary, read_vocabulary

FOLDER = Path(__file__).parents[1] / "fixtures" / "tokenizer"
TEXTS = ["the cat sat on the mat. " * 20, "naïve café, 日本語 🙂 don't I'LL 12345\n\n  x = {'a': 1}\n" * 10]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_directory(FOLDER)


@pytest.fixture(scope="module")
def theirs(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(write_json(tmp_path_factory.mktemp("json"), ours.vocabulary)))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80, alphabet=st.characters(exclude_categories=("Cs", "Cn"), max_codepoint=0x2FFF))
       | st.lists(st.sampled_from([" the", "'ll", "ing", "12", "\n ", "é", "日"])).map("".join))
def test_their_library_gives_our_ids(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    if any("\x1c" <= char <= "\x1f" for char in text):
        return  # Oniguruma counts these as white space, Unicode does not
    assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)


def test_special_tokens_keep_their_ids(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert [theirs.token_to_id(name) for name in SPECIAL_TOKENS] == [ours.encode_special(n) for n in SPECIAL_TOKENS]
    assert theirs.decode(ours.encode(TEXTS[1])) == TEXTS[1]


def test_comes_back(ours: Tokenizer, tmp_path: Path) -> None:
    assert read_json(write_json(tmp_path, ours.vocabulary)) == ours.vocabulary
    assert Tokenizer.from_directory(tmp_path).sha256() == ours.sha256()


def test_theirs_as_the_trainer(tmp_path: Path) -> None:
    learned = Tokenizer.train_from_iterator(TEXTS, 300, trainer="huggingface")
    assert learned.get_vocab_size() == 300
    assert learned.decode(learned.encode(TEXTS[1])) == TEXTS[1]
    mine = Tokenizer.train_from_iterator(TEXTS, 300)
    assert abs(len(learned.encode(TEXTS[1])) - len(mine.encode(TEXTS[1]))) < 10  # ties are broken differently
    learned.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).vocabulary == learned.vocabulary


@pytest.mark.parametrize(("change", "words"), [
    (lambda body: body["model"].update(type="Unigram"), "not a BPE"),
    (lambda body: body.update(normalizer={"type": "NFC"}), "without a normalizer"),
    (lambda body: body["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(a+)+b"), "split pattern"),
    (lambda body: body["pre_tokenizer"]["pretokenizers"].pop(0), "IndexError"),
    (lambda body: body["model"]["merges"].reverse(), "not in the order"),
    (lambda body: body["model"]["merges"].append(["zz", "zz"]), "KeyError"),
    (lambda body: body["model"]["vocab"].pop("a"), "ids do not run"),
    (lambda body: body["added_tokens"].pop(), "special tokens are missing"),
    (lambda body: body.pop("model"), "KeyError"),
])
def test_refuses_another_kind_of_tokenizer(ours: Tokenizer, tmp_path: Path, change: Any, words: str) -> None:
    path = write_json(tmp_path, ours.vocabulary)
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json is not a byte-level BPE.*{words}"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"null"])
def test_refuses_what_is_no_tokenizer_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match="is not a byte-level BPE"):
        Tokenizer.from_directory(tmp_path)


def test_saving_writes_every_format_and_what_one_cannot_say_is_left_out(ours: Tokenizer, tmp_path: Path) -> None:
    ours.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token_bytes.pt", "tokenizer.json", "tokenizer.pkl"]
    assert read_json(tmp_path / "tokenizer.json") == read_vocabulary(tmp_path) == ours.vocabulary
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abcd": 256}
    specials = {name: 257 + i for i, name in enumerate(SPECIAL_TOKENS)}
    Tokenizer(Vocabulary(SPLIT_PATTERN, ranks, specials)).save(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()

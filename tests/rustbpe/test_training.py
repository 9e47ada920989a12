"""rustbpe learns what the definition says, what another trainer learned, and refuses politely."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

import rustbpe

LEARNED = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "learned.json"

WHITE = " \t\n\r\v\f\x1c\x1f\x85\xa0\u2003\u2028\u3000\u200b"
DIGITS = "0129٠٩०७๔۴૩໙१၃᠕½Ⅷ²"
APOSTROPHES = ["'s", "'S", "'ll", "'LL", "'Ve", "'RE", "'d", "'M", "'t", "'x", "’s", "'ſ", "''"]
few = st.text(alphabet="ab ", max_size=60)
words = st.lists(st.sampled_from(["a", "aa", "ab", " ab", "abab", "zy", "é", "日本", "12", "123", *APOSTROPHES]),
                 max_size=40).map("".join)
classes = st.text(alphabet=WHITE + DIGITS + "ab'.,é日", max_size=60)
anything = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cn")), max_size=60)
texts = st.lists(st.one_of(few, words, classes, anything), max_size=5)


def learn(documents: list[str], vocab_size: int, pattern: str | None = None) -> rustbpe.Tokenizer:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(documents), vocab_size, pattern=pattern)
    return tokenizer


def tokens(tokenizer: rustbpe.Tokenizer) -> list[bytes]:
    ranks = tokenizer.get_mergeable_ranks()
    assert [i for _, i in ranks] == list(range(len(ranks)))
    return [token for token, _ in ranks]


@settings(max_examples=200, deadline=None)
@given(texts=texts, merges=st.integers(0, 40))
def test_equals_the_definition(slow_bpe: SimpleNamespace, texts: list[str], merges: int) -> None:
    ours = learn(texts, 256 + merges, slow_bpe.pattern)
    expected = slow_bpe.train(texts, 256 + merges, slow_bpe.pattern)
    assert tokens(ours) == expected
    assert ours.vocab_size == len(expected)


@pytest.mark.parametrize("text", ["", "a", "aa", "a" * 3000, "ab" * 1000, " " * 50 + "x", "\n" * 40])
def test_equals_the_definition_on_extremes(slow_bpe: SimpleNamespace, text: str) -> None:
    assert tokens(learn([text], 280, slow_bpe.pattern)) == slow_bpe.train([text], 280, slow_bpe.pattern)


@pytest.mark.parametrize("case", json.loads(LEARNED.read_bytes()), ids=lambda case: str(case["vocab_size"]))
def test_equals_an_independent_trainer(case: dict) -> None:
    """Learned by version 0.1.0 of the package that nanochat uses, on texts full of ties."""
    ours = learn(case["texts"], case["vocab_size"], case["pattern"])
    assert [token.hex() for token in tokens(ours)[256:]] == case["learned"]
    assert ours.encode(case["texts"][0]) == case["ids"]


def test_equals_huggingface(slow_bpe: SimpleNamespace, prose: list[str]) -> None:
    """Same tokens in the same order, and the same cuts.

    Bytes are numbered in another order there; printable ASCII without the space keeps its order, so ties agree too.
    """
    documents = [text.encode("ascii", "ignore").decode().replace(" ", "-").replace("\n", "") for text in prose]
    theirs = HfTokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(slow_bpe.pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    theirs.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    ours = learn(documents, 700, slow_bpe.pattern)
    learned = sorted(theirs.get_vocab(), key=theirs.get_vocab().__getitem__)[256:]
    assert [token.decode() for token in tokens(ours)[256:]] == learned
    for text in documents:
        assert [ours.decode([i]) for i in ours.encode(text)] == theirs.encode(text).tokens


def test_buffering_and_order_do_not_matter(slow_bpe: SimpleNamespace, prose: list[str]) -> None:
    expected = tokens(learn(prose, 400, slow_bpe.pattern))
    for buffer_size in (1, 7, 10**6):
        again = rustbpe.Tokenizer()
        again.train_from_iterator(reversed(prose), 400, buffer_size, slow_bpe.pattern)
        assert tokens(again) == expected


def test_fewer_tokens_when_the_text_has_no_more_pairs() -> None:
    tokenizer = learn(["abab", "x"], 10_000)
    assert tokens(tokenizer)[256:] == [b"ab", b"abab"]
    assert tokenizer.vocab_size == 258


def test_training_again_starts_anew() -> None:
    tokenizer = learn(["abab"], 300)
    tokenizer.train_from_iterator(["cdcd"], 300, pattern=r"\w+")
    assert tokens(tokenizer)[256:] == [b"cd", b"cdcd"]
    assert tokenizer.get_pattern() == r"\w+"


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ((["a"], 255), ValueError, "255.*at least 256"),
    ((["a"], -1), ValueError, "at least 256"),
    ((["a"], 2**33), ValueError, "less than"),
    ((["a"], 300, 0), ValueError, "buffer_size is 0"),
    ((["a"], 300, 8, "(["), ValueError, "pattern is not a valid"),
    ((["a", "b", 3], 300), TypeError, "item 2 .*int"),
    (([None], 300), TypeError, "item 0 .*NoneType"),
    (([b"a"], 300), TypeError, "item 0 .*bytes"),
    ((["\ud800"], 300), UnicodeEncodeError, "surrogate"),
    ((5, 300), TypeError, "int"),
    ((["a" * 40_000], 300, 8, r"(?:(?=a)a|a)*b(?<=c)"), ValueError, "failed on a text"),
])
def test_refuses_with_a_python_exception_and_stays_as_it_was(arguments: tuple, error: type, words: str) -> None:
    tokenizer = learn(["abab"], 300)
    with pytest.raises(error, match=words):
        tokenizer.train_from_iterator(*arguments)
    assert tokens(tokenizer)[256:] == [b"ab", b"abab"]


def test_an_exception_of_the_iterator_comes_through() -> None:
    class Stop(Exception):
        pass

    def documents() -> Iterator[str]:
        yield "ab"
        raise Stop

    with pytest.raises(Stop):
        rustbpe.Tokenizer().train_from_iterator(documents(), 300)


def test_the_iterator_may_use_the_tokenizer_being_trained() -> None:
    tokenizer = learn(["abab"], 300)
    tokenizer.train_from_iterator((str(tokenizer.encode("abab")) for _ in range(3)), 300)
    assert tokenizer.vocab_size > 256


def test_other_threads_run_while_it_trains(prose: list[str]) -> None:
    ticks, done = 0, threading.Event()
    documents = prose * 4000

    def work() -> None:
        rustbpe.Tokenizer().train_from_iterator(documents, 2000, len(documents))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 20


def test_a_signal_ends_the_training(prose: list[str]) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    def documents() -> Iterator[str]:
        for i in range(10_000_000):
            yield prose[i % len(prose)]

    previous = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(Interrupted):
            rustbpe.Tokenizer().train_from_iterator(documents(), 300)
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, previous)


# ---- from files


def learn_files(paths: list[Path], vocab_size: int = 400, **settings: object) -> rustbpe.Tokenizer:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_files(paths, vocab_size, **settings)
    return tokenizer


def test_files_give_what_their_texts_give(prose: list[str], tmp_path: Path) -> None:
    expected = tokens(learn(prose * 3, 400))
    table = pa.table({"body": prose})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text}) + "\n\n" for text in prose))
    (tmp_path / "c.txt").write_bytes("".join(prose).encode())
    paths = [tmp_path / name for name in ("a.parquet", "b.jsonl", "c.txt")]
    assert tokens(learn_files(paths, text_column="body", threads=3)) == expected
    assert tokens(learn_files([str(path) for path in paths], text_column="body")) == expected


def test_a_text_file_is_one_text_though_it_is_read_in_blocks(tmp_path: Path) -> None:
    text = "".join(f"{'  ' * (i % 3)}line {i % 1009}\r\n{'!' * (i % 2)}\n\n" for i in range(200_000))
    (tmp_path / "big").write_text(text, newline="")
    assert tokens(learn_files([tmp_path / "big"], 500)) == tokens(learn([text], 500))


@pytest.mark.parametrize(("name", "content", "error", "words"), [
    ("a.txt", b"ab\ncd\xff\n", ValueError, r"a\.txt: invalid UTF-8 at byte 5"),
    ("a.jsonl", b'{"text": "ab"}\n{"text": "\xc3"}\n', ValueError, r"a\.jsonl: invalid UTF-8 at byte 25"),
    ("a.jsonl", b'{"text": "ab"}\n{"text": "ab\n', ValueError, r"a\.jsonl, line 2: no text 'text'"),
    ("a.jsonl", b'\n{"other": "ab"}\n', ValueError, r"a\.jsonl, line 2: no text 'text': .*KeyError"),
    ("a.jsonl", b"[]\n", ValueError, r"a\.jsonl, line 1: no text"),
    ("a.jsonl", b'{"text": 5}\n', TypeError, r"a\.jsonl, line 1: .* not a string: .*int"),
    ("a.parquet", b"PAR1 and no more", ValueError, r"a\.parquet: not a readable parquet file"),
    ("a.parquet", b"", ValueError, r"a\.parquet: not a readable parquet file"),
])
def test_names_the_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, error: type,
                                            words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        learn_files([tmp_path / name])


def test_names_a_missing_file_a_truncated_one_and_a_column_of_numbers(prose: list[str], tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            learn_files([tmp_path / name])
    pq.write_table(pa.table({"text": prose * 20}), tmp_path / "cut.parquet")
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.parquet: not a readable"):
        learn_files([tmp_path / "cut.parquet"])
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(TypeError, match=r"numbers\.parquet.* not a string: .*int"):
        learn_files([tmp_path / "numbers.parquet"])
    with pytest.raises(ValueError, match=r"numbers\.parquet: .*column"):
        learn_files([tmp_path / "numbers.parquet"], text_column="column")


def test_a_jsonl_line_that_would_not_fit_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a.jsonl", "wb") as f:
        f.write(b'{"text": "ab"}\n{"text": "')
        f.truncate(70 << 20)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: longer than 64 MB"):
        learn_files([tmp_path / "a.jsonl"])


def test_invalid_utf8_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xff ab ab")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "ab\xff"}\n')
    learned = learn_files([tmp_path / "a.txt", tmp_path / "b.jsonl"], 300, errors="replace")
    assert tokens(learned) == tokens(learn(["ab\ufffd ab ab", "ab\ufffd"], 300))
    with pytest.raises(ValueError, match="errors is 'ignore'"):
        learn_files([tmp_path / "a.txt"], errors="ignore")


def test_progress_tells_documents_speed_and_merges_and_can_end_the_training(prose: list[str]) -> None:
    seen: list[tuple[int, float, int]] = []
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(prose, 356, 10, threads=2, progress=lambda *now: seen.append(now))
    assert [documents for documents, _, merges in seen if merges == 0][:3] == [10, 20, 30]
    assert all(speed > 0 for _, speed, _ in seen)
    assert seen[-1][0] == len(prose) and seen[-1][2] == 100
    assert [merges for _, _, merges in seen] == sorted(merges for _, _, merges in seen)

    def refuse(documents: int, speed: float, merges: int) -> None:
        if merges > 50:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tokenizer.train_from_iterator(prose, 400, progress=refuse)
    assert tokenizer.vocab_size == 356

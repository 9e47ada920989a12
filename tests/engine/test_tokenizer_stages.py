"""tok_train and tok_eval on small shards: what they write, say and refuse, and that they never touch the network."""

from __future__ import annotations

import hashlib
import inspect
import json
import socket
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public as openai_vocabularies

from engine.context import StageContext, StageError, Stopped
from engine.data.shards import write_shard
from engine.events import EventWriter, parse_line
from engine.settings.data import TokEval, TokTrain
from engine.stages import tok_eval, tok_train
from engine.tokenizer import reference
from engine.tokenizer.bpe import Tokenizer

SHARDS = [[f"The fox number {i} saw {i * 37 % 101} birds near the old mill.\n" * 3 for i in range(k, k + 60)]
          for k in (0, 60, 1000)]


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    base = tmp_path / "base"
    for i, documents in enumerate(SHARDS):
        write_shard(base / "base_data" / f"shard_{i:05d}.parquet", documents)
    return StageContext(base, EventWriter(tmp_path / "events.jsonl", stage="01-tok"), "tok")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a stage asked the network")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("tiktoken.load.read_file", refuse)


def events(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    lines = [parse_line(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    return [event.data for event in lines if event and event.kind == kind]


def report(context: StageContext, name: str) -> dict[str, Any]:
    return json.loads((context.base_dir / "report" / name).read_bytes())["data"]


def test_trains_on_all_shards_but_the_last(context: StageContext, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    tok_train.run(TokTrain(vocab_size=300), context)
    tokenizer = Tokenizer.from_directory(context.base_dir / "tokenizer")
    assert tokenizer.vocabulary == Tokenizer.train_from_iterator(SHARDS[0] + SHARDS[1], 300).vocabulary
    out = capsys.readouterr().out
    folder = context.base_dir / "tokenizer"
    for line in ("vocab_size: 300\n", "Training time: ", f"Saved tokenizer encoding to {folder}/tokenizer.pkl\n",
                 f"Saved token_bytes to {folder}/token_bytes.pt\n", "max_chars: 10,000,000,000\n"):
        assert line in out
    progress = [data for data in events(tmp_path, "stage") if data["state"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 2
    facts = report(context, "tokenizer-training.json")
    lengths = [n for n in tokenizer.token_bytes_lengths() if n]
    assert facts["documents"] == 120
    assert facts["characters"] == sum(map(len, SHARDS[0] + SHARDS[1]))
    assert (facts["tokens"], facts["num_special_tokens"]) == (300, 9)
    assert facts["token_bytes_mean"] == statistics.fmean(lengths)


def test_either_trainer_and_any_number_of_threads(context: StageContext, capsys: pytest.CaptureFixture[str]) -> None:
    folder = context.base_dir / "tokenizer"
    tok_train.run(TokTrain(vocab_size=300), context)
    ours = Tokenizer.from_directory(folder).vocabulary
    assert "Counted 120 documents at " in capsys.readouterr().out
    tok_train.run(TokTrain(vocab_size=300, threads=1), context)
    assert Tokenizer.from_directory(folder).vocabulary == ours
    tok_train.run(TokTrain(vocab_size=300, trainer="huggingface"), context)
    assert len(Tokenizer.from_directory(folder).vocabulary) == 300
    assert report(context, "tokenizer-training.json")["trainer"] == "huggingface"


def test_says_when_the_other_trainer_is_not_installed(context: StageContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(StageError, match="not installed: tokenizers") as caught:
        tok_train.run(TokTrain(vocab_size=300, trainer="huggingface"), context)
    assert "pip install tokenizers" in caught.value.next


def test_cuts_documents_and_stops_at_max_chars(context: StageContext) -> None:
    tok_train.run(TokTrain(vocab_size=280, doc_cap=20, max_chars=99), context)
    facts = report(context, "tokenizer-training.json")
    assert (facts["documents"], facts["characters"]) == (5, 100)
    tok_train.run(TokTrain(vocab_size=280, doc_cap=20, max_chars=100), context)
    assert report(context, "tokenizer-training.json")["documents"] == 6


def test_says_when_the_text_is_too_small(context: StageContext, tmp_path: Path) -> None:
    tok_train.run(TokTrain(vocab_size=5000), context)
    (alert,) = events(tmp_path, "alert")
    assert alert["level"] == "warning"
    assert "5,000 were asked for" in alert["text"]
    assert Tokenizer.from_directory(context.base_dir / "tokenizer").get_vocab_size() < 5000


def test_a_stop_leaves_no_tokenizer(context: StageContext) -> None:
    context.stop_requested = True
    with pytest.raises(Stopped):
        tok_train.run(TokTrain(vocab_size=300), context)
    assert not (context.base_dir / "tokenizer").exists()


def test_train_needs_data(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="base_data"):
        tok_train.run(TokTrain(vocab_size=300), StageContext(tmp_path, EventWriter(None), "tok_train"))


@pytest.mark.usefixtures("no_network")
def test_eval_names_missing_vocabularies_and_measures_each_kind(context: StageContext, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    tok_train.run(TokTrain(vocab_size=300), context)
    tok_eval.run(TokEval(), context)
    out = capsys.readouterr().out
    assert "not on this disk, so not compared: gpt2, cl100k_base" in out
    facts = report(context, "tokenizer-evaluation.json")
    assert facts["vocabularies not on this disk"] == "gpt2, cl100k_base"
    kinds = {key.split(":")[0] for key in facts if key.endswith("bytes per token")}
    assert kinds == {"train", "val", "python", "news", "dialogue", "code", "maths", "other_scripts"}
    tokenizer = Tokenizer.from_directory(context.base_dir / "tokenizer")
    tokens = sum(map(len, tokenizer.encode(SHARDS[2])))
    assert facts["val: bytes per token"] == pytest.approx(sum(map(len, SHARDS[2])) / tokens)
    assert facts["val: bytes per token"] > facts["news: bytes per token"] > facts["other_scripts: bytes per token"] >= 1
    (values,) = [data for data in events(tmp_path, "eval") if "bytes_per_token_val" in data]
    assert len(values) == 8
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_network")
def test_eval_compares_with_what_is_on_disk(context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    tok_train.run(TokTrain(vocab_size=300), context)
    singles = tiktoken.Encoding("gpt2", pat_str=r"\s|\S+", mergeable_ranks={bytes([i]): i for i in range(256)},
                                special_tokens={})
    (tmp_path / "cache").mkdir()
    content = b"a vocabulary"
    (tmp_path / "cache" / "file").write_bytes(content)
    monkeypatch.setitem(reference.FILES, "gpt2", {"file": hashlib.sha256(content).hexdigest()})
    monkeypatch.setattr(tiktoken, "get_encoding", {"gpt2": singles}.__getitem__)
    tok_eval.run(TokEval(), context)
    facts = report(context, "tokenizer-evaluation.json")
    assert facts["vocabularies not on this disk"] == "cl100k_base"
    assert facts["val: tokens against gpt2"] == pytest.approx(1 / facts["val: bytes per token"])
    assert "gpt2" in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
def test_eval_needs_a_tokenizer(context: StageContext) -> None:
    with pytest.raises(StageError, match="no usable tokenizer") as caught:
        tok_eval.run(TokEval(), context)
    assert caught.value.next == "run tok_train first"
    (context.base_dir / "tokenizer").mkdir()
    (context.base_dir / "tokenizer" / "tokenizer.pkl").write_bytes(b"junk")
    with pytest.raises(StageError, match="not a nanochat tokenizer"):
        tok_eval.run(TokEval(), context)


@pytest.mark.parametrize("name", reference.FILES)
def test_cache_names_and_hashes_are_tiktokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}

    def record(**files: str) -> dict[bytes, int]:
        addresses = [v for k, v in files.items() if k.endswith("file")]
        hashes = [v for k, v in files.items() if k.endswith("hash")]
        asked.update(zip((hashlib.sha1(a.encode()).hexdigest() for a in addresses), hashes, strict=True))
        return {}

    monkeypatch.setattr(openai_vocabularies, "data_gym_to_mergeable_bpe_ranks", record)
    monkeypatch.setattr(openai_vocabularies, "load_tiktoken_bpe",
                        lambda file, expected_hash: record(file=file, hash=expected_hash))
    getattr(openai_vocabularies, name)()
    assert asked == reference.FILES[name]


def test_cache_folder_is_tiktokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("DATA_GYM_CACHE_DIR", "TIKTOKEN_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert reference.cache_dir() == tmp_path / variable
        assert f'"{variable}"' in inspect.getsource(tiktoken.load.read_file_cached)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert reference.cache_dir() is None
    assert not reference.on_disk("gpt2")

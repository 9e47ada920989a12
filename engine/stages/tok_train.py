"""Train the tokenizer on the training shards, in order, up to a number of characters."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.context import StageContext, StageError
from engine.data.shards import documents, train_files
from engine.settings.data import TokTrain
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS


def run(config: TokTrain, context: StageContext) -> None:
    """Learn a vocabulary and write tokenizer/."""
    for name in ("max_chars", "doc_cap", "vocab_size"):
        context.log(f"{name}: {getattr(config, name):,}")
    reader = _Reader(train_files(context.base_dir), config, context)
    started = time.monotonic()
    tokenizer = _train(config, reader)
    seconds = time.monotonic() - started
    context.log(f"Training time: {seconds:.2f}s")
    _check_size(tokenizer.get_vocab_size(), config.vocab_size, context)

    pickle_path, bytes_path = tokenizer.save(context.base_dir / "tokenizer")
    context.log(f"Saved tokenizer encoding to {pickle_path}")
    context.log(f"Saved token_bytes to {bytes_path}")
    context.progress(len(reader.files), len(reader.files), "shards")
    context.events.evaluation(None, tokenizer_train_time=seconds, vocab_size=tokenizer.get_vocab_size())
    context.report("Tokenizer training", _settings(config), _facts(tokenizer, reader, seconds))


def _train(config: TokTrain, reader: _Reader) -> Tokenizer:
    try:
        return Tokenizer.train_from_iterator(reader, config.vocab_size, trainer=config.trainer, threads=config.threads,
                                             progress=reader.say_speed)
    except ModuleNotFoundError as error:
        if config.trainer != "huggingface":
            raise
        raise StageError(f"the trainer huggingface needs a package that is not installed: {error.name}",
                         "pip install tokenizers, or use --trainer=rustbpe", "settings") from None


@dataclass
class _Reader:
    """The training text, document by document; knows afterwards how much it was."""

    files: list[Path]
    config: TokTrain
    context: StageContext
    documents: int = 0
    chars: int = 0
    merging: bool = False

    def say_speed(self, documents: int, megabytes_per_second: float, merges: int) -> None:
        """Called by the trainer, while it counts and while it merges."""
        self.context.checkpoint_stop()
        if merges and not self.merging:
            self.merging = True
            self.context.log(f"Counted {documents:,} documents at {megabytes_per_second:.0f} MB/s")
        if merges:
            self.context.progress(merges, self.config.vocab_size - 256 - len(SPECIAL_TOKENS), "merges")

    def __iter__(self) -> Iterator[str]:
        started = time.monotonic()
        for done, path in enumerate(self.files):
            eta = (time.monotonic() - started) / done * (len(self.files) - done) if done else None
            self.context.progress(done, len(self.files), "shards", eta)
            for document in documents([path], self.config.errors):
                self.context.checkpoint_stop()
                text = document[: self.config.doc_cap]
                self.documents, self.chars = self.documents + 1, self.chars + len(text)
                yield text
                if self.chars > self.config.max_chars:
                    return


def _check_size(learned: int, asked: int, context: StageContext) -> None:
    """Say so when the text was too small for the vocabulary; the tokenizer is good, only smaller."""
    if learned < asked:
        text = f"the text has pairs for {learned:,} tokens only, {asked:,} were asked for"
        context.log(f"warning: {text}")
        context.events.alert("warning", "small-vocabulary", text, "train on more text, or set a smaller vocab_size")


def _settings(config: TokTrain) -> dict[str, Any]:
    return {"max_chars": config.max_chars, "doc_cap": config.doc_cap, "vocab_size": config.vocab_size,
            "trainer": config.trainer}


def _facts(tokenizer: Tokenizer, reader: _Reader, seconds: float) -> dict[str, Any]:
    lengths = [n for n in tokenizer.token_bytes_lengths() if n > 0]
    return {
        "documents": reader.documents,
        "characters": reader.chars,
        "train_time": seconds,
        "tokens": tokenizer.get_vocab_size(),
        "num_special_tokens": len(tokenizer.get_special_tokens()),
        "token_bytes_min": min(lengths),
        "token_bytes_max": max(lengths),
        "token_bytes_mean": statistics.fmean(lengths),
        "token_bytes_std": statistics.pstdev(lengths),
    }

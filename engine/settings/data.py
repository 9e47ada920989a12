"""Settings of the stages that make data and the tokenizer: dataset, tok_train, tok_eval."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt

TEXT_SOURCES = ("tiny_world", "fineweb_edu", "climbmix", "folder")
ON_ERROR = ("strict", "replace")


@dataclass(frozen=True)
class Dataset:
    """Make or fetch the text that the other stages read."""

    source: str = opt("tiny_world", "which text: the built-in little world, public shards, or a folder of your own",
                      choices=TEXT_SOURCES)
    seed: int = opt(42, "tiny_world: seed of the generator; the same seed gives the same bytes")
    documents: int = opt(28_000, "tiny_world: stories and texts for base training", low=2048)
    conversations: int = opt(32_000, "tiny_world: conversations for mid-training and SFT together", low=400)
    questions: int = opt(400, "tiny_world: held-out questions for chat_eval", low=20)
    python_share: float = opt(0.05, "tiny_world: share of the text from Python's own standard library", low=0, high=1)
    num_files: int | None = opt(8, "fineweb_edu, climbmix: shards of about 100 MB to download; none: all of them",
                                unset=-1, low=1, short="n")
    workers: int = opt(4, "fineweb_edu, climbmix: shards downloaded side by side", low=1, high=32, short="w",
                       also="num_workers")
    base_url: str | None = opt(None, "fineweb_edu, climbmix: a mirror with the same file names; none: the Hub")
    path: str | None = opt(None, "folder: a folder, or one file, of .parquet, .jsonl, .txt or .md")
    text_column: str = opt("text", "folder: the column or field with the text")
    errors: str = opt("strict", "folder: what to do with bytes that are not UTF-8: stop, or read U+FFFD",
                      choices=ON_ERROR)


@dataclass(frozen=True)
class TokTrain:
    """Train the BPE tokenizer on the training shards."""

    max_chars: int = opt(10_000_000_000, "stop reading after this many characters", low=1)
    doc_cap: int = opt(10_000, "cut each document to this many characters", low=1)
    vocab_size: int = opt(65_536, "tokens in all, the nine special ones included", low=256 + 9)
    trainer: str = opt("rustbpe", "who learns the merges: ours, or the slower one of Hugging Face",
                       choices=("rustbpe", "huggingface"))
    errors: str = opt("strict", "what to do with text that is not Unicode: stop, or read U+FFFD", choices=ON_ERROR)
    threads: int | None = opt(None, "threads that split and count text; none: all cores", unset=-1, low=1)


@dataclass(frozen=True)
class TokEval:
    """Compare the tokenizer's compression with GPT-2's and GPT-4's, by kind of text."""

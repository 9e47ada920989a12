"""Settings of the stages that make data and the tokenizer: dataset, tok_train, tok_eval."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt


@dataclass(frozen=True)
class Dataset:
    """Make or fetch the text and the conversations that the other stages read."""

    source: str = opt("tiny_world", "which data: the built-in little world", choices=("tiny_world",))
    seed: int = opt(42, "seed of the generator; the same seed gives the same bytes")
    documents: int = opt(28_000, "stories and texts for base training", low=2048)
    conversations: int = opt(32_000, "conversations for mid-training and SFT together", low=400)
    questions: int = opt(400, "held-out questions for chat_eval", low=20)
    python_share: float = opt(0.05, "share of the text taken from Python's own standard library", low=0, high=1)


@dataclass(frozen=True)
class TokTrain:
    """Train the BPE tokenizer on the training shards."""

    max_chars: int = opt(10_000_000_000, "stop reading after this many characters", low=1)
    doc_cap: int = opt(10_000, "cut each document to this many characters", low=1)
    vocab_size: int = opt(65_536, "tokens in all, the nine special ones included", low=256 + 9)
    trainer: str = opt("rustbpe", "who learns the merges: ours, or the slower one of Hugging Face",
                       choices=("rustbpe", "huggingface"))
    threads: int | None = opt(None, "threads that split and count text; none: all cores", unset=-1, low=1)


@dataclass(frozen=True)
class TokEval:
    """Compare the tokenizer's compression with GPT-2's and GPT-4's, by kind of text."""

"""Which conversations mid-training and fine-tuning read: named mixtures, or one that the user writes.

    nanochat-mid, nanochat-sft   what nanochat's two stages read; nanochat-modern: its later single one
    no-benchmarks                conversations only: no training split of anything that is asked in evaluation
    SmolTalk:10000+GSM8K*2+identity   any tasks of the table, with rows and counts
    FILE.jsonl                   a file of conversations

The result is a sequence of conversations, as `engine.data.conversations` gives one for a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import ConfigError, nearest
from engine.data.download import Log
from engine.tasks import table
from engine.tasks.task import Conversation, TaskMixture

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Mixture:
    """Items for training and, with the split named, for validation."""

    summary: str
    train: str
    val: tuple[tuple[str, str], ...]  # (item, split)


NAMED = {
    "nanochat-mid": Mixture(
        "SmolTalk, MMLU, GSM8K, identity twice, spelling: about 850,000 rows",
        "SmolTalk+MMLU+GSM8K+identity*2+SimpleSpelling:200000+SpellingBee:80000",
        (("SmolTalk", "test"), ("MMLU:5200", "test"), ("GSM8K:420", "test"))),
    "nanochat-sft": Mixture(
        "ARC, GSM8K, 10,000 of SmolTalk, identity, a little spelling: about 23,000 rows",
        "ARC-Easy+ARC-Challenge+GSM8K+SmolTalk:10000+identity+SimpleSpelling:300+SpellingBee:300",
        (("SmolTalk", "test"),)),
    "nanochat-modern": Mixture(
        "SmolTalk, MMLU three times, GSM8K four times: what its later fine-tuning from base reads",
        "SmolTalk+MMLU*3+GSM8K*4",
        (("SmolTalk", "test"), ("MMLU:5200", "test"), ("GSM8K:420", "test"))),
    "no-benchmarks": Mixture(
        "conversations only, no training split of a benchmark",
        "SmolTalk+identity*2+Synthetic-Persona-Chat", (("SmolTalk", "test"),)),
}


def build(name_or_spec: str, base: Path, split: str = "train", *, log: Log = print) -> Sequence[Conversation]:
    """The conversations of a mixture, shuffled once and for all. Raises ConfigError or StageError."""
    if split not in SPLITS:
        raise ConfigError(f"a mixture has the splits {' and '.join(SPLITS)}, not {split!r}")
    if split == "val" and name_or_spec in NAMED:
        items = list(NAMED[name_or_spec].val)
    else:
        items = _items(NAMED[name_or_spec].train if name_or_spec in NAMED else name_or_spec, split)
    return TaskMixture([task for item, part in items for task in table.load(item, base, part, log=log)])


def items_of(name: str) -> list[tuple[str, str]]:
    """Every (item, split of the table) that a named mixture reads, for training and validation."""
    return [*_items(NAMED[name].train, "train"), *NAMED[name].val]


def _items(spec: str, split: str) -> list[tuple[str, str]]:
    """(item, split of the table) of each part of a written mixture.

    For validation: the parts that have a test split, at most 1,000 rows each; a file is validated on its own rows."""
    parts = [part.strip() for part in spec.split("+") if part.strip()]
    if not parts:
        raise ConfigError(f"the mixture is empty; known: {', '.join(NAMED)}, or tasks joined by +")
    parts = [f"json:{part}" if part.endswith(".jsonl") and not part.startswith("json:") else part for part in parts]
    for part in parts:
        _check(part, spec)
    if split == "train":
        return [(part, "train") for part in parts]
    own = [(part.partition("*")[0], "train") for part in parts if part.startswith("json:")]
    names = dict.fromkeys(part.partition("*")[0].partition(":")[0] for part in parts if not part.startswith("json:"))
    tested = [table.find(name) for name in names]
    found = [(f"{t.name}:1000", "test") for t in tested if "test" in (t.splits or t.size)]
    return [*found, *own] or [(part.partition("*")[0], "train") for part in parts]


def _check(part: str, spec: str) -> None:
    """Refuse a misspelled part before anything is fetched."""
    name = part.partition("*")[0].partition(":")[0]
    if name != "json" and name.lower() not in {known.lower() for known in table.TASKS}:
        raise ConfigError(f"--mixture={spec}: unknown part {name!r}{nearest(name, [*table.TASKS, *NAMED])}")

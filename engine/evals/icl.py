"""In-context learning tasks as text and token rows: prompts, few-shot examples, and which tokens are scored.

Three kinds, worded as in the DCLM evaluation that nanochat took over: multiple_choice (several endings of one text),
schema (several texts with one ending), language_modeling (one ending, word for word). No model here, no tensors.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

KINDS = ("multiple_choice", "schema", "language_modeling")
_SHUFFLE_SEED = 1337
_EXAMPLES_SEED = 1234  # plus the item's number

Item = Mapping[str, Any]


class Encoder(Protocol):
    """What rendering needs of a tokenizer."""

    def encode(self, text: str, prepend: int) -> list[int]: ...

    def get_bos_token_id(self) -> int: ...


@dataclass(frozen=True)
class IclTask:
    """One task of CORE: its items in evaluation order and how they are asked."""

    label: str
    kind: str
    num_fewshot: int
    delimiter: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Rows:
    """One item as rows of token ids; tokens start <= i < end of a row are scored. `gold` is the right row, None where
    every scored token must be the likeliest one."""

    ids: list[list[int]]
    spans: list[tuple[int, int]]
    gold: int | None


def in_order(items: Sequence[Item], max_items: int | None = None) -> list[Item]:
    """The items in the order that CORE asks them, at most `max_items`."""
    shuffled = list(items)
    random.Random(_SHUFFLE_SEED).shuffle(shuffled)
    return shuffled[:max_items]


def examples(task: IclTask, number: int) -> list[Item]:
    """The solved items shown before item `number`, never the item itself."""
    if not task.num_fewshot:
        return []
    others = [i for i in range(len(task.items)) if i != number]
    chosen = random.Random(_EXAMPLES_SEED + number).sample(others, min(task.num_fewshot, len(others)))
    return [task.items[i] for i in chosen]


def prompts(task: IclTask, item: Item, shown: Sequence[Item]) -> list[str]:
    """The texts of an item: one per choice or context; for language modeling without and with the ending."""
    d = task.delimiter
    if task.kind == "multiple_choice":
        head = "".join(f"{e['query']}{d}{e['choices'][e['gold']]}\n\n" for e in shown)
        return [f"{head}{item['query']}{d}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        head = "".join(f"{e['context_options'][e['gold']]}{d}{e['continuation']}\n\n" for e in shown)
        return [f"{head}{context}{d}{item['continuation']}" for context in item["context_options"]]
    head = "".join(f"{e['context'].strip()}{d}{e['continuation']}\n\n" for e in shown)
    open_end = f"{head}{item['context'].strip()}{d}"
    return [open_end.strip(), open_end + item["continuation"]]


def rows(task: IclTask, number: int, encoder: Encoder) -> Rows:
    """Item `number` as token rows. What all rows share is not scored: the beginning of choices, the end of schemas."""
    item = task.items[number]
    texts = prompts(task, item, examples(task, number))
    ids = [encoder.encode(text, prepend=encoder.get_bos_token_id()) for text in texts]
    if task.kind == "language_modeling":
        start = common(ids[0], ids[1])
        return Rows([ids[1]], [(start, len(ids[1]))], None)
    if task.kind == "multiple_choice":
        start = common(*ids)
        return Rows(ids, [(start, len(row)) for row in ids], item["gold"])
    same = common(*(row[::-1] for row in ids))
    return Rows(ids, [(len(row) - same, len(row)) for row in ids], item["gold"])


def common(*sequences: Sequence[int]) -> int:
    """How many leading elements all sequences share."""
    shortest = min(map(len, sequences))
    return next((i for i in range(shortest) if any(s[i] != sequences[0][i] for s in sequences)), shortest)


def cut(one: Rows, room: int) -> Rows:
    """Rows of at most `room` tokens: what is too long loses its beginning."""
    ids, spans = [], []
    for row, (start, end) in zip(one.ids, one.spans, strict=True):
        lost = max(0, len(row) - room)
        ids.append(row[lost:])
        spans.append((max(start - lost, 0), end - lost))
    return Rows(ids, spans, one.gold)

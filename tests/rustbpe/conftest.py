"""A slow twin of rustbpe: the definition of byte-level BPE, in as few lines as it takes, for comparison."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import pytest
import regex

NANOCHAT_PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
                    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")


def split(text: str, pattern: str) -> list[bytes]:
    """Python's regex counts four control characters as white space that Unicode does not: say it by property."""
    same = pattern.replace(r"[^\s", r"[^\p{White_Space}").replace(r"\s", r"\p{White_Space}")
    same = same.replace(r"\S", r"\P{White_Space}")
    return [found.group().encode() for found in regex.finditer(same, text) if found.group()]


def replace(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def count_pairs(words: dict[tuple[int, ...], int]) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
    return counts


def train(texts: list[str], vocab_size: int, pattern: str) -> list[bytes]:
    """The bytes of every token, in id order."""
    words = Counter(tuple(chunk) for text in texts for chunk in split(text, pattern))
    tokens = [bytes([i]) for i in range(256)]
    while len(tokens) < vocab_size:
        counts = count_pairs(words)
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged: Counter[tuple[int, ...]] = Counter()
        for word, times in words.items():
            merged[tuple(replace(list(word), best, len(tokens)))] += times
        words = merged
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


@pytest.fixture(scope="session")
def slow_bpe() -> SimpleNamespace:
    return SimpleNamespace(split=split, train=train, pattern=NANOCHAT_PATTERN)


@pytest.fixture(scope="session")
def prose() -> list[str]:
    """Text with a skewed word distribution, the same on every machine."""
    state, syllables, documents = 1, ["ka", "ri", "mo", "the", "ing", "er", "st", "on", "pla", "u", "é", "日"], []
    for _ in range(60):
        words = []
        for _ in range(120):
            word = ""
            for _ in range(3):
                state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                word += syllables[min(state >> 33 & 15, state >> 40 & 15) % 12]
            words.append(word + ("'ll" if state >> 50 & 31 == 0 else ", 1950" if state >> 50 & 31 == 1 else ""))
        documents.append(" ".join(words) + ".\n")
    return documents

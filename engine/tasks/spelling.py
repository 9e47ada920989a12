"""Spelling: SimpleSpelling writes a word letter by letter, SpellingBee counts a letter in a word, by hand and then with
the calculator. Problems are made on the fly from a list of words, the i-th always the same.
"""

from __future__ import annotations

import os
import random
import string
from functools import lru_cache
from pathlib import Path

from engine.context import StageError
from engine.data.download import explained, open_line
from engine.rundir import shared_base
from engine.tasks.gsm8k import final_answer
from engine.tasks.spelling_words import TEMPLATES
from engine.tasks.task import Conversation, Message, Problem, Task

WORDS_FILE = "words_alpha.txt"
WORDS_URL = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"
WORDS_URL_VARIABLE = "LLMCONSOLE_WORDS_URL"
TEST_OFFSET = 10_000_000  # seeds of test problems start here, far behind those for training
_SHUFFLE_SEED = 42


def words(base: Path) -> tuple[str, ...]:
    """The English word list, fetched once. Raises StageError saying how to get it."""
    path = shared_base(base) / WORDS_FILE
    if not path.exists():
        _fetch_words(path)
    return _read_words(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_words(path: Path, _changed: int) -> tuple[str, ...]:
    found = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    if not found:
        raise StageError(f"{path} holds no words", "remove it and start again", "data")
    return found


def _fetch_words(path: Path) -> None:
    url = os.environ.get(WORDS_URL_VARIABLE) or WORDS_URL

    def missing(cause: str) -> StageError:
        return StageError(f"the word list of the spelling tasks is not on this machine and cannot be fetched: {cause}",
                          f"put any list of words, one per line, at {path}, or choose a mixture without spelling",
                          "data")

    with explained(path.parent, missing), open_line(print) as line:
        path.parent.mkdir(parents=True, exist_ok=True)
        line.fetch(url, path)


class SimpleSpelling(Task):
    """`Spell the word: river` -> `river:r,i,v,e,r`."""

    name = "SimpleSpelling"

    def __init__(self, base: Path, *, size: int = 1000, split: str = "train", start: int = 0, stop: int | None = None,
                 step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.size, self.offset = size, TEST_OFFSET if split == "test" else 0
        shuffled = list(words(base))
        random.Random(_SHUFFLE_SEED).shuffle(shuffled)
        self.words = shuffled

    def num_rows(self) -> int:
        return self.size

    def row(self, i: int) -> Problem:
        word = self.words[(self.offset + i) % len(self.words)]
        return Problem(_turn(f"Spell the word: {word}", f"{word}:{','.join(word)}"))


class SpellingBee(Task):
    """`How many r are in strawberry?` -> spelled, counted one by one, checked with the calculator, `#### 3`."""

    name = "SpellingBee"
    kind = "generative"

    def __init__(self, base: Path, *, size: int = 1000, split: str = "train", start: int = 0, stop: int | None = None,
                 step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.size, self.offset, self.words = size, TEST_OFFSET if split == "test" else 0, words(base)

    def num_rows(self) -> int:
        return self.size

    def row(self, i: int) -> Problem:
        chance = random.Random(self.offset + i)
        word = chance.choice(self.words)
        letter = chance.choice(word) if chance.random() < 0.9 else chance.choice(string.ascii_lowercase)
        count = word.count(letter)
        return Problem(_turn(_question(chance, word, letter), _counting(word, letter, count)),
                       facts={"answer": str(count)})

    def mark(self, problem: Problem, answer: str) -> bool:
        return final_answer(answer) == problem.facts["answer"]


def _question(chance: random.Random, word: str, letter: str) -> str:
    template = chance.choice(TEMPLATES)
    if chance.random() < 0.3:
        template = template.lower()
    quotes = ("", "'", '"')
    around_letter, around_word = chance.choice(quotes), chance.choice(quotes)
    question = template.format(letter=f"{around_letter}{letter}{around_letter}",
                               word=f"{around_word}{word}{around_word}")
    return question + ("?" if chance.random() < 0.5 else "")


def _counting(word: str, letter: str, count: int) -> list[Message]:
    """The worked answer: by hand, then with the calculator, then the number."""
    lines, seen = [], 0
    for place, character in enumerate(word, start=1):
        hit = character == letter
        seen += hit
        lines.append(f"{place}:{character}" + (f" hit! count={seen}" if hit else ""))
    by_hand = (f"I go through '{word}' letter by letter and look for '{letter}'.\n\nSpelled out:\n"
               f"{word}:{','.join(word)}\n\nCounting '{letter}':\n" + "\n".join(lines)
               + f"\n\nBy hand that is {count}.")
    return [{"type": "text", "text": by_hand + "\n\nNow the same with Python:\n\n"},
            {"type": "python", "text": f"'{word}'.count('{letter}')"},
            {"type": "python_output", "text": str(count)},
            {"type": "text", "text": f"\n\nPython says {count} as well.\n\n#### {count}"}]


def _turn(question: str, answer: str | list[Message]) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

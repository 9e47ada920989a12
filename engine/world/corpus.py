"""The little world written out: texts, conversations and questions, and the promise that no two splits share one.

Wordings, numbers, words and pairs are already kept apart where they are made. What can still coincide by chance (a
short question that two wordings lead to) is compared here, without case and punctuation, and thrown away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from random import Random
from typing import Any

from engine.world.documents import documents
from engine.world.kinds import KINDS, asked, conversation, question
from engine.world.marking import normalised
from engine.world.sample import Message
from engine.world.stdlib_text import pieces

_TRIES = 500  # to find a question that nobody has asked yet


def texts(seed: int, split: str, count: int, python_share: float, avoid: Collection[str] = ()) -> list[str]:
    """About `count` documents in random order, `python_share` of their characters Python source, none in `avoid`."""
    world = [text for text in documents(seed, split, count) if text not in avoid] if python_share < 1 else []
    size = sum(map(len, world)) or count * 160
    python = list(pieces(seed, split, int(size * python_share / (1 - python_share)) if python_share < 1 else size))
    mixed = world[: max(0, count - len(python))] + python if python_share < 1 else python
    Random(f"{seed}|order|{split}").shuffle(mixed)
    return mixed


def conversations(seed: int, split: str, count: int, avoid: set[str]) -> list[list[Message]]:
    """`count` different conversations of `split`, none of which asks just what one in `avoid` does.

    What was asked is added to `avoid`.
    """
    rng = Random(f"{seed}|conversations|{split}")
    made: list[list[Message]] = []
    while len(made) < count:
        messages = conversation(rng, split)
        key = normalised(asked(messages))
        if key not in avoid:
            avoid.add(key)
            made.append(messages)
    return made


def asked_before(made: Iterable[list[Message]]) -> set[str]:
    """Everything that was asked: each run of consecutive user turns of each conversation, normalised."""
    seen = set()
    for messages in made:
        turns = [normalised(str(m["content"])) for m in messages if m["role"] == "user"]
        for start in range(len(turns)):
            for end in range(start + 1, len(turns) + 1):
                seen.add(" ".join(turns[start:end]))
    return seen


def questions(seed: int, count: int, seen: set[str]) -> Iterator[dict[str, Any]]:
    """`count` test questions, the kinds in turn; none was asked in `seen`, none comes twice.

    Fewer where a kind has no more to ask: there are only so many ways to say hello.
    """
    rng = Random(f"{seed}|questions")
    taken = set(seen)
    for i in range(count):
        for _ in range(_TRIES):
            row, own = question(rng, KINDS[i % len(KINDS)])
            key = normalised(asked(own))
            if key not in taken:
                taken.add(key)
                yield row
                break

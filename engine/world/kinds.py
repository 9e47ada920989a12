"""The table of everything that can be asked in the little world, and how exchanges become conversations.

A kind makes samples for a split; `conversation` puts one to three of them after another, as people do. The test
questions come from the same table with split "test".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from engine.world import facts, letters, numbers, reading, story, talk, unknown
from engine.world.marking import mark
from engine.world.sample import Message, Sample, all_text, visible_text

MAX_CHARS = 520  # of one conversation: about 200 tokens of a small vocabulary, so it fits a context of 256


@dataclass(frozen=True)
class Kind:
    """A kind of question. `weight` is its share of the conversations, larger for what is harder to learn."""

    name: str
    title: str
    make: Callable[[Random, str], Sample]
    weight: float = 1.0

    def mark(self, accept: dict[str, Any], text: str, tools: Sequence[str] = ()) -> bool:
        return mark(accept, text, tools)


def _short_talk(rng: Random, split: str) -> list[Message]:
    """No, one or two other exchanges, to stand between being told something and being asked for it."""
    messages: list[Message] = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        messages += rng.choice(_ASIDE)(rng, split).messages
    return messages


_ASIDE = (facts.country, facts.animal, facts.colour, facts.opposite, facts.calendar, talk.manners, numbers.add,
          letters.repeat)


def _memory(rng: Random, split: str) -> Sample:
    if split != "test" and rng.random() < 0.12:
        return reading.untold(rng, split)
    return reading.memory(rng, split, _short_talk)


KINDS = (
    Kind("country", "capitals, continents and languages", facts.country, 1.1),
    Kind("animal", "what animals say, where they live", facts.animal, 1.7),
    Kind("colour", "colours of things", facts.colour, 1.0),
    Kind("opposite", "opposites", facts.opposite, 0.8),
    Kind("calendar", "days and months", facts.calendar, 0.9),
    Kind("category", "what kind of thing it is", facts.category, 1.9),
    Kind("follow_up", "and what about ...?", facts.follow_up, 0.8),
    Kind("add", "sums, by calculator", numbers.add, 1.3),
    Kind("subtract", "differences, by calculator", numbers.subtract, 0.8),
    Kind("multiply", "products, by calculator", numbers.multiply, 0.7),
    Kind("divide", "divisions, by calculator", numbers.divide, 0.6),
    Kind("word_problem", "sums told as a story", numbers.word_problem, 0.7),
    Kind("compare", "which number is larger", numbers.compare, 1.0),
    Kind("count", "counting, the next number", numbers.count, 2.6),
    Kind("even_odd", "even or odd", numbers.even_odd, 2.2),
    Kind("spell", "spelling", letters.spell, 3.2),
    Kind("first_last", "the first and the last letter", letters.first_last, 2.0),
    Kind("letter_count", "counting a letter, by calculator", letters.letter_count, 0.8),
    Kind("repeat", "saying it again", letters.repeat, 1.6),
    Kind("reading", "reading and answering", reading.reading, 5.2),
    Kind("memory", "remembering what was said", _memory, 2.2),
    Kind("story", "two-sentence stories", story.story, 0.8),
    Kind("identity", "who the model is", talk.identity, 1.5),
    Kind("manners", "greetings and thanks", talk.manners, 1.5),
    Kind("unknown", "honestly not knowing", unknown.unknown, 2.3),
)
BY_NAME = {kind.name: kind for kind in KINDS}
_WEIGHTS = [kind.weight for kind in KINDS]


def conversation(rng: Random, split: str) -> list[Message]:
    """One to three exchanges of any kinds in a row."""
    messages: list[Message] = []
    for _ in range(rng.choices((1, 2, 3), (5, 3, 2))[0]):
        more = rng.choices(KINDS, _WEIGHTS)[0].make(rng, split).messages
        if messages and len(all_text(messages)) + len(all_text(more)) > MAX_CHARS:
            break
        messages = messages + more
    return messages


def question(rng: Random, kind: Kind, split: str = "test") -> tuple[dict[str, Any], list[Message]]:
    """One line of a questions file (kind, messages up to the question, how to mark, a reference answer), and those of
    its messages that belong to the question itself: every fourth comes after another exchange."""
    sample = kind.make(rng, split)
    before: list[Message] = []
    if rng.random() < 0.25:
        before = rng.choice(_ASIDE)(rng, split).messages
        if len(all_text(before)) + len(all_text(sample.messages)) > MAX_CHARS:
            before = []
    row = {"kind": kind.name, "messages": before + sample.messages[:-1], "accept": sample.accept,
           "answer": visible_text(sample.messages[-1]["content"])}
    return row, sample.messages


def asked(messages: Sequence[Message]) -> str:
    """The user turns of a conversation as one string, to compare conversations by what was asked."""
    return "\n".join(str(m["content"]) for m in messages if m["role"] == "user")

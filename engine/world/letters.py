"""Kinds of question about the letters of a word, and repeating words: what a model of tokens finds hard.

It never sees letters, only pieces of words, and has to learn which letters each piece holds. A word belongs to one
split: what a test asks to spell was never spelled in training. Training also spells words that do not exist.
"""

from __future__ import annotations

from random import Random

from engine.world.lexicon import (
    CATEGORIES,
    COLOURS,
    COUNTABLE,
    FOODS,
    INSIDE,
    LONG_SPELLING,
    MOODS,
    NAMES,
    OBJECTS,
    SPELLING,
    STORY_ANIMALS,
)
from engine.world.phrasing import Asks, casual, made_up, owned
from engine.world.sample import Sample, calculated, exchange, user

_KNOWN = tuple(sorted({w.lower() for group in (SPELLING, OBJECTS, COUNTABLE, INSIDE, STORY_ANIMALS, FOODS, COLOURS,
                                               MOODS,
                                               *CATEGORIES.values()) for w in group if len(w) >= 3}))
# A short word can be one token, and the letters of a token that was never spelled cannot be known: so only long words
# are held back whole. Of the others the wording of the question is new.
_LONG = tuple(sorted({*LONG_SPELLING} - {*_KNOWN}))
WORDS = {"train": _KNOWN + owned("train", _LONG, "letters"), "val": owned("val", _LONG, "letters"),
         "test": owned("test", _LONG, "letters")}


_HABITS = ("hello world", "good morning", "good night", "I like you", "thank you", "see you soon", "how nice",
           "open the door", "one two three", "the end", "all is well", "time for tea")


def word(rng: Random, split: str) -> str:
    """A word to ask about: in training every fourth is made up, outside of it every seventh was never seen before."""
    if split == "train":
        return made_up(rng, rng.choice((1, 2, 2, 3))) if rng.random() < 0.25 else rng.choice(WORDS["train"])
    return rng.choice(WORDS[split if rng.random() < 0.15 else "train"])


SPELL = Asks(
    ("how would I spell {w}?", "spell out {w} for me.", "tell me the letters of {w}.",
     "can I hear how {w} is spelled?", "what are the letters in {w}?", "do you know how to spell {w}?", "spell {w}.",
     "spell the word {w}.", "how do you spell {w}?", "how is {w} spelled?", "how do I spell {w}?", "spell {w} for me.",
     "spell out {w}.", "what letters are in {w}?", "give me the letters of {w}.", "tell me how to spell {w}."),
    ("how would you spell {w}?", "spell out the word {w}.", "what are the letters of {w}?"))


def spell(rng: Random, split: str) -> Sample:
    w = word(rng, split)
    question = casual(rng, SPELL.pick(rng, split).format(w=w))
    return exchange(question, "-".join(w) + ".", {"rule": "letters", "word": w})


FIRST_LAST = Asks(
    ("which letter is {which} in {w}?", "do you know the {which} letter in {w}?", "name the {which} letter in {w}.",
     "what letter is the {which} one in {w}?", "what is the {which} letter of {w}?",
     "what is the {which} letter in {w}?", "which letter is the {which} in {w}?", "tell me the {which} letter of {w}.",
     "what is the {which} letter of the word {w}?", "the {which} letter of {w}?",
     "which is the {which} letter of {w}?", "give me the {which} letter of {w}."),
    ("do you know the {which} letter of {w}?", "name the {which} letter of {w}.", "what letter is the {which} in {w}?"))


def first_last(rng: Random, split: str) -> Sample:
    w, which = word(rng, split), rng.choice(("first", "last"))
    answer = f"The {which} letter of {w} is {w[0] if which == 'first' else w[-1]}."
    return exchange(casual(rng, FIRST_LAST.pick(rng, split).format(w=w, which=which)), answer,
                    {"rule": "text", "text": answer})


LETTER_COUNT = Asks(
    ("how many {c} are in {w}?", "how many {c}'s are in {w}?", "how many {c} are there in {w}?",
     "how often does {c} appear in {w}?", "how many times does {c} appear in {w}?",
     "how many times is the letter {c} in {w}?", "count the letter {c} in {w}.", "count the {c}'s in {w}.",
     "how many letters {c} does {w} have?", "how often is the letter {c} in {w}?",
     "how many times does the letter {c} appear in the word {w}?"),
    ("how many times does the letter {c} occur in {w}?", "how many of the letter {c} are in {w}?",
     "how many {c}'s does {w} have?"))


def letter_count(rng: Random, split: str) -> Sample:
    """The word is handed to the calculator just as it was said, with the space or the quote before it."""
    w = word(rng, split)
    c = rng.choice(w) if rng.random() < 0.8 else rng.choice("abcdefghilmnoprstuwy")
    n = w.count(c)
    quoted = rng.random() < 0.3
    question = LETTER_COUNT.pick(rng, split).format(c=c, w=f'"{w}"' if quoted else w)
    expression = f'"{"" if quoted else " "}{w}".count("{c}")'
    answer = f"The letter {c} appears {n} {'time' if n == 1 else 'times'} in {w}."
    accept = {"rule": "number", "value": str(n), "tool": str(n)}
    return Sample([user(casual(rng, question, lower=0.5)), calculated(expression, str(n), answer)], accept)


REPEAT = Asks(
    ("repeat these words: {p}.", "say these words: {p}.", "repeat this after me: {p}.", "say after me: {p}.",
     "say {p}.", "repeat {p}.", "repeat after me: {p}.", "say this: {p}.", "repeat the words {p}.",
     "say the words {p}.", "just say {p}.", "please say {p}."),
    ("repeat this: {p}.", "now say: {p}.", "repeat the following: {p}."))


def _phrase(rng: Random, split: str) -> str:
    """Two or three words, or a little sentence, in lower case; its text decides which split owns it."""
    while True:
        adjective, noun = rng.choice(COLOURS + MOODS), rng.choice(OBJECTS + STORY_ANIMALS)
        p = rng.choice((f"{adjective} {noun}", f"the {adjective} {noun}", f"my {noun} is {adjective}",
                        f"the {noun} is not {adjective}", " ".join(rng.sample(WORDS["train"], rng.randrange(2, 4))),
                        " ".join(rng.sample(NAMES, 2)).lower(),
                        rng.choice(_HABITS).lower()))
        if p in owned(split, (p,), "repeat"):
            return p


def repeat(rng: Random, split: str) -> Sample:
    p = _phrase(rng, split)
    said = f'"{p}"' if rng.random() < 0.25 else p
    question = casual(rng, REPEAT.pick(rng, split).format(p=said))
    return exchange(question, said, {"rule": "text", "text": p})

"""How people ask: openings, moods, capitals and the lack of them, and which wordings are kept back for testing.

A wording is an opening and a core ("hey, " + "what is the capital of {country}?"). Every wording belongs to exactly
one split, by a stable hash; some cores are kept back whole, so that no opening of theirs is ever seen in training.
This file knows nothing of answers.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from random import Random

SPLITS = ("train", "val", "test")
UNSEEN_SHARE = 0.3  # of the test questions have a core never trained on, the others a new opening

QUESTION_OPENINGS = ("hey, ", "hi! ", "tell me, ", "please tell me: ", "quick question: ", "so, ", "now, ", "hello! ",
                     "okay, ", "I wonder, ", "one more question: ", "great! ")
ORDER_OPENINGS = ("please ", "can you ", "could you ", "would you please ", "now ", "hey, ", "okay, ",
                  "could you please ", "great, now ")
STATEMENT_OPENINGS = ("hey, ", "okay, ", "so, ", "hello! ", "hi! ", "now, ", "please, ", "great! ")
_STATEMENTS = ("I ", "a story", "story:", "the ", "call me")  # orders that no "could you" can precede
_ASKING = ("can you ", "could you ", "would you please ", "could you please ")

_CONTRACTIONS = (("what is ", "what's "), ("What is ", "What's "), ("who is ", "who's "), ("Who is ", "Who's "),
                 ("where is ", "where's "), ("Where is ", "Where's "), ("I am ", "I'm "), ("do not ", "don't "),
                 ("does not ", "doesn't "), ("I would ", "I'd "), ("it is ", "it's "), ("It is ", "It's "))


def split_of(key: str) -> str:
    """The split that owns `key`: one in ten is test, one in ten val, for ever and on every machine."""
    slot = zlib.crc32(key.encode()) % 10
    return SPLITS[2 - slot] if slot < 2 else "train"


def owned(split: str, keys: Sequence[str], space: str) -> tuple[str, ...]:
    """Those of `keys` that belong to `split`; `space` keeps the partitions of different kinds independent."""
    return tuple(key for key in keys if split_of(f"{space}|{key}") == split)


class Asks:
    """All wordings of one question. A core that ends in '?' is a question, any other an order ("spell {word}.").

    `openings` replaces the usual ones where neither "hey, " nor "please " would fit.
    """

    def __init__(self, seen: Sequence[str], unseen: Sequence[str], openings: Sequence[str] | None = None) -> None:
        plain = [("", core) for core in seen]
        opened = [(opening, core) for core in seen for opening in (_openings(core) if openings is None else openings)]
        self._plain = self._shared_out(plain)
        self._opened = self._shared_out(opened)
        self._unseen = [(opening, core) for core in unseen
                        for opening in ("", "", "", *(_openings(core) if openings is None else openings))]
        self.seen, self.unseen = tuple(seen), tuple(unseen)

    @staticmethod
    def _shared_out(wordings: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
        """The wordings of each split. Where none fell to val, val borrows from train: its subjects still differ."""
        owned_by = {split: [w for w in wordings if split_of("wording|" + "|".join(w)) == split] for split in SPLITS}
        owned_by["val"] = owned_by["val"] or owned_by["train"]
        return owned_by

    def wordings(self, split: str) -> list[tuple[str, str]]:
        """Every (opening, core) that `pick` may choose for `split`."""
        return self._plain[split] + self._opened[split] + (self._unseen if split == "test" else [])

    def pick(self, rng: Random, split: str) -> str:
        """A wording of `split` with its slots still open; a third of the test wordings have a core never trained on."""
        if split == "test" and (rng.random() < UNSEEN_SHARE or not (self._plain[split] or self._opened[split])):
            return join(*rng.choice(self._unseen))
        plain, opened = self._plain[split], self._opened[split]
        return join(*rng.choice(plain if plain and (not opened or rng.random() < 0.6) else opened))


def _openings(core: str) -> tuple[str, ...]:
    if core.endswith("?"):
        return QUESTION_OPENINGS
    return STATEMENT_OPENINGS if core.startswith(_STATEMENTS) else ORDER_OPENINGS


def join(opening: str, core: str) -> str:
    """One sentence with a capital at its start; a polite order becomes a question."""
    if opening in _ASKING and core.endswith("."):
        core = core[:-1] + "?"
    return capital(opening + core)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def casual(rng: Random, text: str, lower: float = 0.35) -> str:
    """The same sentence as people type it: contractions, no capitals, no full stop at the end."""
    if rng.random() < 0.4:
        for long, short in _CONTRACTIONS:
            text = text.replace(long, short)
    if rng.random() < lower:
        text = text.lower()
    if rng.random() < 0.35:
        text = text.rstrip("?.! ")
    return text


def a(noun: str) -> str:
    """The noun with its article: 'an owl', 'a fox'."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


_ONSETS = ("b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s",
           "sh", "st", "t", "tr", "v", "w", "z", "th", "gl", "cr", "sp", "qu")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ee", "oo", "ou", "y", "ea")
_CODAS = ("", "n", "r", "l", "m", "s", "t", "nd", "x", "ck", "rk", "st", "p", "d", "ng", "ll")


def made_up(rng: Random, syllables: int = 2) -> str:
    """A word that nobody has heard of, such as 'brondal': for spelling, names and questions without an answer."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))

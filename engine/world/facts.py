"""Kinds of question whose answer is a fact of the lexicon: countries, animals, colours, opposites, calendar, groups.

The facts themselves are taught; held back for testing are the wordings, so that knowing is told from parroting.
"""

from __future__ import annotations

from random import Random
from typing import Any

from engine.world.lexicon import ANIMALS, CATEGORIES, COLOURED, COUNTRIES, DAYS, MONTHS, OPPOSITES, Animal, Country
from engine.world.phrasing import Asks, a, capital, casual
from engine.world.sample import Sample, assistant, exchange, user

_IRREGULAR = {"mouse": "mice", "goose": "geese", "wolf": "wolves", "fox": "foxes", "sheep": "sheep", "deer": "deer",
              "butterfly": "butterflies"}


def plural(animal: str) -> str:
    return _IRREGULAR.get(animal, animal + "s")


def has(*phrases: str) -> dict[str, Any]:
    return {"rule": "words", "all": list(phrases)}


CAPITAL = Asks(
    ("what is the capital of {country}?", "which city is the capital of {country}?",
     "what is the capital city of {country}?", "tell me the capital of {country}.", "name the capital of {country}.",
     "{country}: what is its capital?", "what is {country}'s capital?", "the capital of {country}?",
     "give me the capital of {country}."),
    ("do you know the capital of {country}?", "what city is the capital of {country}?",
     "name the capital city of {country}.", "I want to know the capital of {country}."))
CONTINENT = Asks(
    ("where is {country} on the map?", "where in the world can I find {country}?",
     "do you know on which continent {country} is?", "{country} is on which continent?", "where is {country}?",
     "on which continent is {country}?", "which continent is {country} in?", "in what part of the world is {country}?",
     "tell me where {country} is.", "what continent is {country} on?"),
    ("do you know where {country} is?", "on what continent is {country}?", "where in the world is {country}?"))
LANGUAGE = Asks(
    ("what language does {country} speak?", "do you know the language of {country}?",
     "what language is it in {country}?", "what language do people speak in {country}?",
     "which language is spoken in {country}?", "what do people speak in {country}?",
     "what is the language of {country}?", "tell me the language of {country}.",
     "which language do they speak in {country}?"),
    ("what language is spoken in {country}?", "what language do they speak in {country}?"))
CAPITAL_OF = Asks(
    ("{capital} is the capital of which country?", "which country has the capital {capital}?",
     "what country is {capital} the capital of?", "of which country is {capital} the capital?",
     "tell me the country whose capital is {capital}.", "in which country is {capital}?"),
    ("which country is {capital} the capital of?", "what country has {capital} as its capital?",
     "in what country is {capital}?"))


def capital_of(c: Country) -> str:
    return f"The capital of {c.name} is {c.capital}."


def country(rng: Random, split: str) -> Sample:
    c = rng.choice(COUNTRIES)
    asks, answer, key = rng.choice((
        (CAPITAL, capital_of(c), c.capital), (CAPITAL, capital_of(c), c.capital),
        (CONTINENT, f"{c.name} is a country in {c.continent}.", c.continent),
        (LANGUAGE, f"People in {c.name} speak {c.language}.", c.language),
        (CAPITAL_OF, f"{c.capital} is the capital of {c.name}.", c.name)))
    question = asks.pick(rng, split).format(country=c.name, capital=c.capital)
    return exchange(casual(rng, question), answer, has(key))


SOUND = Asks(
    ("do you know what sound {a} makes?", "what sound can I hear from {a}?", "tell me what {a} says.",
     "what noise do {many} make?", "which sound do {many} make?", "what sound does {a} make?", "what does {a} say?",
     "which sound does {a} make?", "what noise does {a} make?", "how does {a} sound?", "what sound do {many} make?",
     "tell me the sound of {a}.", "what do {many} say?", "what does the {one} say?"),
    ("which noise do {many} make?", "which noise does {a} make?", "what is the sound of {a}?"))
LEGS = Asks(
    ("how many legs has {a}?", "how many legs has the {one} got?", "how many legs does the {one} have?",
     "tell me how many legs the {one} has.", "how many legs have {many} got?", "how many legs does {a} have?",
     "how many legs do {many} have?", "{a} has how many legs?", "what number of legs does {a} have?",
     "tell me how many legs {a} has.", "how many legs are there on {a}?"),
    ("do you know how many legs {a} has?", "how many legs has {a} got?", "tell me how many legs {many} have."))
HOME = Asks(
    ("tell me where the {one} lives.", "where does the {one} live?", "say where {many} live.",
     "I want to know where {many} live.", "where do {many} have their home?", "where does {a} live?",
     "where do {many} live?", "what is the home of {a}?", "where can I find {a}?", "tell me where {a} lives.",
     "where is the home of {a}?", "in what place does {a} live?"),
    ("do you know where {many} live?", "where can I find {many}?", "tell me where {many} live."))
YOUNG = Asks(
    ("what is a baby {one} called?", "what do you call a baby {one}?", "what is the name for a baby {one}?",
     "what is a young {one} called?", "tell me the name of a baby {one}.", "how do you call a young {one}?",
     "a baby {one} is called what?"),
    ("what do we call a baby {one}?", "what is the word for a baby {one}?", "what do you call a young {one}?"))


def sound_of(x: Animal) -> str:
    return f"{capital(a(x.name))} {x.sound}."


def legs_of(x: Animal) -> str:
    return f"{capital(a(x.name))} has {x.legs or 'no'} legs."


def animal(rng: Random, split: str) -> Sample:
    x = rng.choice(ANIMALS)
    about = [(HOME, f"{capital(a(x.name))} lives {x.home}.", x.home),
             (YOUNG, f"A baby {x.name} is called {a(x.young)}.", x.young)]
    if x.sound:
        about += [(SOUND, sound_of(x), x.sound)]
    if x.legs >= 0:
        about += [(LEGS, legs_of(x), f"{x.legs or 'no'} legs")]
    asks, answer, key = rng.choice(about)
    question = asks.pick(rng, split).format(a=a(x.name), one=x.name, many=plural(x.name))
    return exchange(casual(rng, question), answer, has(key))


COLOUR = Asks(
    ("do you know what colour {thing} is?", "say what colour {thing} is.", "I want to know the colour of {thing}.",
     "what colour does {thing} have?", "what colour is {thing}?", "what color is {thing}?", "which colour is {thing}?",
     "what is the colour of {thing}?", "which color is {thing}?", "tell me the colour of {thing}.",
     "what is the color of {thing}?", "{thing} has what colour?", "name the colour of {thing}."),
    ("do you know the colour of {thing}?", "which colour has {thing}?", "tell me what colour {thing} is.",
     "what colour would you say {thing} is?"))


def colour(rng: Random, split: str) -> Sample:
    thing, hue = rng.choice(list(COLOURED.items()))
    question = COLOUR.pick(rng, split).format(thing=thing)
    return exchange(casual(rng, capital(question)), f"{capital(thing)} is {hue}.", has(f"is {hue}"))


OPPOSITE = Asks(
    ("do you know what the opposite of {word} is?", "I want to know the opposite of {word}.",
     "find the opposite of {word}.", "what is the opposite word of {word}?", "say the opposite of {word}.",
     "what is the opposite of {word}?", "tell me the opposite of {word}.", "which word is the opposite of {word}?",
     "give me the opposite of {word}.", "what word means the opposite of {word}?", "the opposite of {word}?",
     "what is the contrary of {word}?", "name the opposite of {word}."),
    ("do you know the opposite of {word}?", "what would be the opposite of {word}?",
     "tell me what the opposite of {word} is.", "give the opposite of {word}."))


def opposite_of(word: str) -> str:
    return next(b if x == word else x for x, b in OPPOSITES if word in (x, b))


def opposite(rng: Random, split: str) -> Sample:
    word = rng.choice(rng.choice(OPPOSITES))
    other = opposite_of(word)
    question = OPPOSITE.pick(rng, split).format(word=word)
    return exchange(casual(rng, question), f"The opposite of {word} is {other}.", has(f"is {other}"))


AFTER = Asks(
    ("which {unit} comes right after {name}?", "name the {unit} that comes after {name}.",
     "what {unit} is after {name}?", "do you know which {unit} comes after {name}?",
     "what {unit} is next after {name}?", "which {unit} is after {name}?", "what {unit} comes after {name}?",
     "which {unit} comes after {name}?", "what comes after {name}?", "which {unit} follows {name}?",
     "tell me the {unit} after {name}.", "what is the {unit} after {name}?", "after {name} comes what?",
     "what is the next {unit} after {name}?"),
    ("which {unit} is right after {name}?", "name the {unit} after {name}.", "what {unit} follows {name}?"))
BEFORE = Asks(
    ("which {unit} comes right before {name}?", "name the {unit} that comes before {name}.",
     "what {unit} is before {name}?", "do you know which {unit} comes before {name}?",
     "which {unit} comes just before {name}?", "what {unit} comes before {name}?", "which {unit} comes before {name}?",
     "what comes before {name}?", "tell me the {unit} before {name}.", "what is the {unit} before {name}?",
     "before {name} comes what?", "which {unit} is before {name}?"),
    ("which {unit} is right before {name}?", "name the {unit} before {name}.", "what {unit} is just before {name}?"))


def calendar(rng: Random, split: str) -> Sample:
    unit, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    at = rng.randrange(len(names))
    asks, word, step = rng.choice(((AFTER, "after", 1), (BEFORE, "before", -1)))
    name, other = names[at], names[(at + step) % len(names)]
    question = asks.pick(rng, split).format(unit=unit, name=name)
    return exchange(casual(rng, question), f"The {unit} {word} {name} is {other}.", has(f"is {other}"))


IS_A = Asks(
    ("do you know whether {thing} is {group}?", "I want to know if {thing} is {group}.",
     "can we call {thing} {group}?", "say if {thing} is {group}.", "am I right that {thing} is {group}?",
     "is {thing} {group}?", "is {thing} really {group}?", "would you call {thing} {group}?",
     "is it true that {thing} is {group}?", "tell me if {thing} is {group}.", "do you think {thing} is {group}?",
     "{thing}: is it {group}?"),
    ("can you say that {thing} is {group}?", "do you know if {thing} is {group}?",
     "tell me whether {thing} is {group}."))
WHAT_IS = Asks(
    ("do you know what kind of thing {thing} is?", "what sort of thing would you call {thing}?",
     "explain to me what {thing} is.", "{thing}: what is it?", "what type of thing would {thing} be?",
     "what is {thing}?", "what kind of thing is {thing}?", "tell me what {thing} is.",
     "what sort of thing is {thing}?", "what do you call {thing}?"),
    ("do you know what {thing} is?", "what type of thing is {thing}?", "explain what {thing} is."))
_GROUP_OF = {thing: group for group, things in CATEGORIES.items() for thing in things}


def category(rng: Random, split: str) -> Sample:
    group = rng.choice(list(CATEGORIES))
    thing = rng.choice(CATEGORIES[group])
    fact = f"{a(thing)} is {a(group)}"
    if rng.random() < 0.3:
        question = WHAT_IS.pick(rng, split).format(thing=a(thing))
        return exchange(casual(rng, question), capital(fact) + ".", has(f"is {a(group)}"))
    asked = group if rng.random() < 0.5 else rng.choice([g for g in CATEGORIES if g != group])
    question = IS_A.pick(rng, split).format(thing=a(thing), group=a(asked))
    # What was asked and the fact come first: a small model cannot compare what it has not said.
    yes, no = ("yes", "no") if asked == group else ("no", "yes")
    accept = {"rule": "words", "all": [f"is {a(group)}", f"so {yes}"], "none": [f"so {no}"]}
    return exchange(casual(rng, capital(question)), f"{capital(a(asked))}? {capital(fact)}, so {yes}.", accept)


FURTHER = Asks(
    ("and for {x}?", "and now {x}?", "and how is it for {x}?", "and {x}?", "what about {x}?", "and what about {x}?",
     "and of {x}?", "how about {x}?", "okay, and {x}?"),
    ("and how about {x}?", "and what about {x} then?"))


def follow_up(rng: Random, split: str) -> Sample:
    """A question, its answer, and 'what about ...?', which means nothing without what went before."""
    asks, slot, facts = rng.choice(_FOLLOWED)
    (x, _, answer), (y, key, second) = rng.sample(facts, 2)
    first = casual(rng, capital(asks.pick(rng, split).format(**_slots(slot, x))))
    then = casual(rng, FURTHER.pick(rng, split).format(x=y))
    return Sample([user(first), assistant(answer), user(then), assistant(second)], has(key))


def _slots(slot: str, x: str) -> dict[str, str]:
    bare = x.split(" ", 1)[-1]
    return {slot: x, "one": bare, "many": plural(bare)}


_FOLLOWED: tuple[tuple[Asks, str, list[tuple[str, str, str]]], ...] = (
    (CAPITAL, "country", [(c.name, c.capital, capital_of(c)) for c in COUNTRIES]),
    (SOUND, "a", [(a(x.name), x.sound, sound_of(x)) for x in ANIMALS if x.sound]),
    (LEGS, "a", [(a(x.name), f"{x.legs or 'no'} legs", legs_of(x)) for x in ANIMALS if x.legs >= 0]),
    (COLOUR, "thing", [(thing, f"is {hue}", f"{capital(thing)} is {hue}.") for thing, hue in COLOURED.items()]),
    (OPPOSITE, "word",
     [(w, f"is {opposite_of(w)}", f"The opposite of {w} is {opposite_of(w)}.") for p in OPPOSITES for w in p]),
)

"""The kind 'story': two sentences about an animal in a place, both asked for. Which animal goes where is split."""

from __future__ import annotations

from random import Random

from engine.world.lexicon import COLOURS, FOODS, MOODS, OBJECTS, STORY_ANIMALS, STORY_PLACES
from engine.world.phrasing import Asks, a, casual, split_of
from engine.world.sample import Sample, exchange

BOTH = Asks(
    ("tell me a story about {x} {place}.", "tell me a short story about {x} {place}.",
     "write a story about {x} {place}.", "write a short story about {x} {place}.", "a story about {x} {place}.",
     "give me a story about {x} {place}.", "make up a story about {x} {place}.", "tell a story with {x} {place}.",
     "I want a story about {x} {place}.", "tell me a little story about {x} {place}.",
     "do you know a story about {x} {place}?", "tell me two sentences about {x} {place}.",
     "give me two sentences about {x} {place}.", "I would like a story about {x} {place}.",
     "may I hear a story about {x} {place}?", "can I have a short story about {x} {place}?",
     "tell a story about {x} {place}.", "make a little story about {x} {place}.", "story: {x} {place}."),
    ("write two sentences about {x} {place}.", "write a little story about {x} {place}.",
     "tell a short story about {x} {place}.", "may I have a story about {x} {place}?"))
ANIMAL_ONLY = Asks(
    ("tell me a story about {x}.", "write a story about {x}.", "a story about {x}.", "make up a story about {x}.",
     "tell me a short story about {x}."),
    ("write a short story about {x}.", "tell a story about {x}."))
ANY = Asks(
    ("tell me a story.", "write a story.", "tell me a short story.", "do you know a story?", "a story.",
     "I want a story.", "make up a story."),
    ("tell me a little story.", "write a short story."))

FIRST = ("A {mood} {x} lived {place}.", "A {mood} {x} was walking {place}.", "One morning {ax} was playing {place}.",
         "A little {x} was all alone {place}.", "Once there was {amood} {x} {place}.",
         "One night {ax} heard a song {place}.", "A {mood} {x} found {acolour} {object} {place}.",
         "A young {x} wanted to see the stars {place}.", "It was a warm day and {ax} was sleeping {place}.")
SECOND = ("It found {acolour} {object} and gave it to a friend.",
          "It shared its {food} with a {other} and they became friends.",
          "A kind {other} came by and they played until the sun went down.",
          "It danced all day and went home {mood2} and tired.",
          "When the rain came, it sang a song and was not afraid.",
          "It lost its {object}, but a {other} helped to find it.",
          "It looked up at the moon and made a wish for a friend.",
          "Then it met a {mood2} {other} and they laughed together.",
          "At night it told a story to all the others and they fell asleep.")


def place_and_animal(rng: Random, split: str) -> tuple[str, str]:
    """An animal and a place ("in the forest") whose pair belongs to `split`."""
    while True:
        x, place = rng.choice(STORY_ANIMALS), rng.choice(list(STORY_PLACES))
        if split_of(f"story|{x}|{place}") == split:
            return x, f"{STORY_PLACES[place]} {place}"


def two_sentences(rng: Random, x: str, place: str) -> str:
    other = rng.choice([o for o in STORY_ANIMALS if o != x and o[0] not in "aeiou"])
    mood, mood2 = rng.sample([m for m in MOODS if m[0] not in "aeiou"], 2)
    hue = rng.choice(COLOURS)
    slots = {"x": x, "ax": a(x), "place": place, "mood": mood, "amood": a(mood), "mood2": mood2, "acolour": a(hue),
             "object": rng.choice(OBJECTS),
             "food": rng.choice(FOODS), "other": other}
    first = rng.choice(FIRST)
    second = rng.choice([s for s in SECOND if not ("{object}" in first and "{object}" in s)])
    return first.format(**slots) + " " + second.format(**slots)


def story(rng: Random, split: str) -> Sample:
    x, place = place_and_animal(rng, split)
    text = two_sentences(rng, x, place)
    chance = 1.0 if split == "test" else rng.random()
    asks, wanted = (ANY, []) if chance < 0.08 else (ANIMAL_ONLY, [x]) if chance < 0.2 else (BOTH, [x, place])
    question = casual(rng, asks.pick(rng, split).format(x=a(x), place=place))
    return exchange(question, text, {"rule": "story", "all": wanted})

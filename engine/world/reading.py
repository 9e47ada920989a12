"""Kinds of question about what was just said: a short text, a person's name, what somebody likes.

Names, places and things are those of the lexicon; which name goes with which thing is decided by split, so the model
cannot have learned the answer and must look it up in the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from engine.world.lexicon import ANIMALS, COUNTRIES, FOODS, INSIDE, MOODS, MORE_NAMES, NAMES, OBJECTS, PAINTS
from engine.world.phrasing import Asks, a, capital, casual, made_up, split_of
from engine.world.sample import Message, Sample, assistant, exchange, user

_OPENINGS = ("read this: ", "here is a story. ", "listen. ", "listen: ", "read this and answer. ",
             "I will tell you something. ", "a question for you: ", "okay, ")


def _asks(seen: Sequence[str], unseen: Sequence[str]) -> Asks:
    return Asks(["{text} " + core for core in seen], ["{text} " + core for core in unseen], _OPENINGS)


WHERE = _asks(("Where is {x}?", "Where can I find {x}?", "In which place is {x}?", "Tell me where {x} is.",
               "So where is {x}?", "What place is {x} in?"),
              ("Do you know where {x} is?", "Where is {x} now?"))
WHO_IN = _asks(("Who is in the {x}?", "Who is inside the {x}?", "Tell me who is in the {x}.",
                "Which person is in the {x}?", "So who is in the {x}?"),
               ("Do you know who is in the {x}?", "Who can I find in the {x}?"))
WHAT_COLOUR = _asks(("What colour is the {x}?", "What color is the {x}?", "Which colour is the {x}?",
                     "What is the colour of the {x}?", "Tell me the colour of the {x}."),
                    ("Tell me what colour the {x} is.", "What is the color of the {x}?"))
WHO_HAS = _asks(("Who has the {x}?", "Whose is the {x}?", "Tell me who has the {x}.", "Which person has the {x}?",
                 "Who has a {x}?", "So who has the {x}?"),
                ("Do you know who has the {x}?", "Who is it that has the {x}?"))
WHAT_HAS = _asks(("What does {x} have?", "What has {x} got?", "Tell me what {x} has.", "What is it that {x} has?",
                  "So what does {x} have?"),
                 ("Do you know what {x} has?", "Which thing does {x} have?"))
WHAT_LIKES = _asks(("What does {x} like?", "What does {x} like to eat?", "Tell me what {x} likes.",
                    "What food does {x} like?", "So what does {x} like?"),
                   ("Do you know what {x} likes?", "Which food does {x} like?"))
WHO_LIKES = _asks(("Who likes {x}?", "Tell me who likes {x}.", "Which person likes {x}?", "Who is it that likes {x}?",
                   "So who likes {x}?"),
                  ("Do you know who likes {x}?", "Who likes to eat {x}?"))
HOW_IS = _asks(("How is {x}?", "How does {x} feel?", "Tell me how {x} feels.", "How is {x} feeling?", "So how is {x}?"),
               ("Do you know how {x} feels?", "How is {x} today?"))
WHO_IS = _asks(("Who is {x}?", "Tell me who is {x}.", "Which person is {x}?", "Who feels {x}?", "So who is {x}?"),
               ("Do you know who is {x}?", "Who is the {x} one?"))


@cache
def _partners(split: str, name: str, things: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `things` whose pair with `name` belongs to `split`."""
    return tuple(thing for thing in things if split_of(f"{name}&{thing}") == split)


def people_with(rng: Random, split: str, many: int, *columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """`many` rows (name, a thing of each column), nothing twice; every pair of name and thing belongs to `split`."""
    while True:
        names = rng.sample(NAMES, many)
        picked = [names]
        for things in columns:
            options = [_partners(split, name, things) for name in names]
            picked.append([rng.choice(some) for some in options if some])
        if all(len(set(column)) == many for column in picked):
            return list(zip(*picked, strict=True))


def _told(rng: Random, facts: list[str]) -> str:
    """Facts as sentences, or two of them in one."""
    if len(facts) == 2 and rng.random() < 0.35:
        return f"{facts[0]} and {facts[1]}."
    return " ".join(fact + "." for fact in facts)


_Rows = list[tuple[str, ...]]
_Question = tuple[Asks, str, str]  # wordings, what they ask about, the answer


def _places(rng: Random, people: _Rows) -> tuple[list[str], list[_Question]]:
    facts = [f"{n} is in the {p}" for n, p in people]
    return facts, [q for (n, p), fact in zip(people, facts, strict=True) for q in ((WHERE, n, fact), (WHO_IN, p, fact))]


def _things(rng: Random, people: _Rows) -> tuple[list[str], list[_Question]]:
    facts, questions = [], []
    for (n, o), hue in zip(people, rng.sample(PAINTS, len(people)), strict=True):
        facts.append(f"{n} has {a(hue)} {o}")
        questions += [(WHAT_COLOUR, o, f"The {o} is {hue}"), (WHO_HAS, o, f"{n} has the {o}"), (WHAT_HAS, n, facts[-1])]
    return facts, questions


def _likes(rng: Random, people: _Rows) -> tuple[list[str], list[_Question]]:
    facts = [f"{n} likes {f}" for n, f in people]
    return facts, [q for (n, f), fact in zip(people, facts, strict=True)
                   for q in ((WHAT_LIKES, n, fact), (WHO_LIKES, f, fact))]


def _feels(rng: Random, people: _Rows) -> tuple[list[str], list[_Question]]:
    facts = [f"{n} is {m}" for n, m in people]
    return facts, [q for (n, m), fact in zip(people, facts, strict=True) for q in ((HOW_IS, n, fact),
                                                                                   (WHO_IS, m, fact))]


_TEXTS: tuple[tuple[Callable[[Random, _Rows], tuple[list[str], list[_Question]]], tuple[str, ...]], ...] = (
    (_places, INSIDE), (_things, OBJECTS), (_likes, FOODS), (_feels, MOODS))


_ASIDES = ("It is a sunny day.", "It is late.", "The sun is warm.", "It is raining.", "Outside it is cold.",
           "It is a quiet day.")


def scene(rng: Random, split: str, many: int) -> tuple[str, list[_Question]]:
    """A text about `many` people, and everything that can be asked about it, in random order."""
    text, things = rng.choice(_TEXTS)
    facts, questions = text(rng, people_with(rng, split, many, things))
    rng.shuffle(questions)
    return _told(rng, facts), questions


def reading(rng: Random, split: str) -> Sample:
    """A text about one or two people and a question about it; in training mostly more than one question."""
    many = rng.choice((1, 1, 2, 2, 2))
    text, questions = scene(rng, split, many)
    if many == 1:
        text = rng.choice((text, f"{text} {rng.choice(_ASIDES)}", f"{rng.choice(_ASIDES)} {text}"))
    else:  # looking up who did it, against the order of the words, among several people is beyond a model this small
        questions = [q for q in questions if q[0] not in (WHO_IN, WHO_HAS, WHO_LIKES, WHO_IS)]
    messages: list[Message] = []
    for turn, (asks, slot, answer) in enumerate(questions[: rng.choice((2, 2, 3)) if split == "train" else 1]):
        wording = asks.pick(rng, split) if not turn else asks.pick(rng, split).partition("{text} ")[2]
        question = casual(rng, wording.format(text=text, x=slot), lower=0.12)
        messages += [user(question), assistant(answer + ".")]
    return Sample(messages, {"rule": "text", "text": answer})


_ALL_NAMES = tuple(sorted(name for name in {*NAMES, *MORE_NAMES} if len(name) <= 7))
_PET_NAMES = ("Rex", "Bella", "Luna", "Max", "Milo", "Charlie", "Coco", "Lucky", "Rocky", "Daisy", "Buddy", "Molly",
              "Spot", "Shadow", "Ginger", "Toby", "Lola", "Bruno", "Nala", "Oreo", "Felix", "Simba", "Chip", "Misty",
              "Rusty", "Snowy", "Tiger", "Sunny", "Pepper", "Honey", "Olive", "Star", "Blacky", "Fluffy", "Biscuit",
              "Teddy")
_PETS = ("dog", "cat", "horse", "rabbit", "mouse", "duck", "goat", "hen")


def _name(rng: Random, split: str) -> str:
    """A person's name; in training now and then one that nobody has."""
    chance = rng.random()
    if split == "train" and chance < 0.12:
        return capital(made_up(rng, rng.choice((1, 2))))
    return rng.choice(NAMES if chance < 0.5 else _ALL_NAMES)


# What a person says about themselves, how the model takes it, how they ask later, and what it then answers.
_TOLD = {
    "name": (("my name is {v}.", "I am {v}.", "I am called {v}.", "hello, I am {v}.", "hi, my name is {v}!",
              "you can call me {v}.", "people call me {v}.", "call me {v}."),
             "Nice to meet you, {v}!", "Your name is {v}."),
    "animal": (("my favourite animal is the {v}.", "my favorite animal is the {v}.",
                "the animal I like most is the {v}.", "I love the {v} most of all animals."),
               "The {v} is a lovely animal. I will remember that.", "Your favourite animal is the {v}."),
    "colour": (("my favourite colour is {v}.", "my favorite color is {v}.", "the colour I like most is {v}.",
                "I like the colour {v} best."),
               "{V} is a lovely colour. I will remember that.", "Your favourite colour is {v}."),
    "food": (("my favourite food is {v}.", "my favorite food is {v}.", "the food I like most is {v}.",
              "I like to eat {v}."),
             "Yum, {v}! I will remember that.", "Your favourite food is {v}."),
    "age": (("I am {v} years old.", "my age is {v}.", "I just turned {v}.", "I am {v} years old now."),
            "Thank you for telling me.", "You are {v} years old."),
    "city": (("I live in {v}.", "I am from {v}.", "my home is in {v}.", "I come from {v}."),
             "{v} must be a nice place.", "You live in {v}."),
    "pet": (("my {p} is called {v}.", "I have a {p} called {v}.", "the name of my {p} is {v}.",
             "my {p}'s name is {v}."),
            "{v} is a nice name for a {p}.", "Your {p} is called {v}."),
}
_ASKED = {
    "name": Asks(("what is my name?", "who am I?", "do you remember my name?", "what am I called?",
                  "do you know my name?", "tell me my name.", "say my name."),
                 ("can you remember my name?", "what was my name?", "do you still know my name?")),
    "animal": Asks(("what is my favourite animal?", "what is my favorite animal?", "which animal do I like most?",
                    "do you remember my favourite animal?", "tell me my favourite animal."),
                   ("which animal is my favourite?", "what was my favourite animal?")),
    "colour": Asks(("what is my favourite colour?", "what is my favorite color?", "which colour do I like most?",
                    "do you remember my favourite colour?", "tell me my favourite colour."),
                   ("which colour is my favourite?", "what was my favourite colour?")),
    "food": Asks(("what is my favourite food?", "what is my favorite food?", "which food do I like most?",
                  "do you remember my favourite food?", "what do I like to eat?"),
                 ("which food is my favourite?", "what was my favourite food?")),
    "age": Asks(("how old am I?", "what is my age?", "do you remember my age?", "tell me my age.",
                 "do you know how old I am?"), ("what was my age?", "do you remember how old I am?")),
    "city": Asks(("where do I live?", "where am I from?", "do you remember where I live?", "in which city do I live?",
                  "tell me where I live."), ("which city do I live in?", "what city am I from?")),
    "pet": Asks(("what is my {p} called?", "what is the name of my {p}?", "what is my {p}'s name?",
                 "do you remember the name of my {p}?", "tell me the name of my {p}."),
                ("how is my {p} called?", "what was the name of my {p}?")),
}
_UNTOLD = "I do not know that yet. Please tell me."
_CITIES = (*(c.capital for c in COUNTRIES), "Boston", "Milan", "Hamburg", "New York", "Chicago", "Munich", "Dallas",
           "Sydney", "Toronto", "Lyon", "Porto", "Osaka", "Mumbai", "Shanghai", "Leeds", "Geneva", "Prague", "Zurich")


def _value(rng: Random, split: str, topic: str) -> str:
    if topic == "name":
        return _name(rng, split)
    if topic == "age":
        return str(rng.randrange(4, 100))
    if topic == "pet":
        return rng.choice(_PET_NAMES)
    if topic == "city":
        return rng.choice(_CITIES)
    return rng.choice({"animal": tuple(x.name for x in ANIMALS), "colour": PAINTS, "food": FOODS}[topic])


def _telling(rng: Random, split: str, topic: str) -> tuple[Message, Message, Message, str, str]:
    """(user tells, model takes it, model answers later, the value, the pet) for a value and wording of `split`."""
    tells, taken, later = _TOLD[topic]
    while True:
        v, p, tell = _value(rng, split, topic), rng.choice(_PETS), rng.choice(tells)
        if split_of(f"told|{tell}|{v}|{p if topic == 'pet' else ''}") == split:
            break
    slots = {"v": v, "V": capital(v), "p": p}
    said = casual(rng, capital(tell.format(**slots)), lower=0.15)
    return user(said), assistant(taken.format(**slots)), assistant(later.format(**slots)), v, p


def memory(rng: Random, split: str, between: Callable[[Random, str], list[Message]]) -> Sample:
    """Tell the model something, talk about other things, then ask for it. `between` gives the other turns."""
    topics = rng.sample(list(_TOLD), rng.choice((1, 1, 2)))
    if rng.random() < 0.45 and "name" not in topics:
        topics[0] = "name"
    told = [_telling(rng, split, topic) for topic in topics]
    at = rng.randrange(len(topics))
    messages = [m for tell in told for m in tell[:2]] + between(rng, split)
    question = casual(rng, _ASKED[topics[at]].pick(rng, split).format(p=told[at][4]))
    accept = {"rule": "text", "text": told[at][2]["content"]}
    return Sample([*messages, user(question), told[at][2]], accept)


def untold(rng: Random, split: str) -> Sample:
    """A question about the person which they never told the answer to."""
    question = casual(rng, _ASKED[rng.choice(list(_ASKED))].pick(rng, split).format(p=rng.choice(_PETS)))
    return exchange(question, _UNTOLD, {"rule": "words", "all": ["do not know"]})

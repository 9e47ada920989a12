"""The little world as running text, for base training and the tokenizer: facts, stories, lists and small dialogues.

Everything that is later asked stands here in several wordings, so base training already teaches it. Documents respect
the splits of the questions: no test sum, test word or test pair is ever written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

from engine.world import facts, letters, numbers, reading, story
from engine.world.kinds import KINDS
from engine.world.lexicon import (
    ANIMALS,
    CATEGORIES,
    COLOURED,
    COLOURS,
    COUNTRIES,
    DAYS,
    MONTHS,
    MOODS,
    NAMES,
    OBJECTS,
    OPPOSITES,
)
from engine.world.phrasing import a, capital, listed, split_of
from engine.world.sample import tool_results, visible_text


def _country(rng: Random, split: str) -> str:
    c = rng.choice(COUNTRIES)
    lines = [
        rng.choice((facts.capital_of(c), f"{c.capital} is the capital of {c.name}.",
                    f"The capital city of {c.name} is called {c.capital}.")),
        rng.choice((f"{c.name} is a country in {c.continent}.", f"{c.name} is in {c.continent}.",
                    f"You can find {c.name} in {c.continent}.")),
        rng.choice((f"People in {c.name} speak {c.language}.", f"In {c.name} they speak {c.language}.",
                    f"The language of {c.name} is {c.language}.")),
        rng.choice((f"{rng.choice(NAMES)} lives in {c.capital}, and that is in {c.name}.",
                    f"If you travel to {c.name}, you will see {c.capital}.",
                    f"{rng.choice(NAMES)} took a train to {c.capital}.",
                    f"{rng.choice(NAMES)} wants to learn {c.language} and visit {c.name}.")),
    ]
    rng.shuffle(lines)
    near = [o.name for o in COUNTRIES if o.continent == c.continent and o is not c]
    if near and rng.random() < 0.3:
        others = rng.sample(near, min(3, len(near)))
        lines.append(f"{listed(others)} {'are' if len(others) > 1 else 'is'} also in {c.continent}.")
    return " ".join(lines[: rng.randrange(2, 6)])


def _animal(rng: Random, split: str) -> str:
    x = rng.choice(ANIMALS)
    one, many = a(x.name), facts.plural(x.name)
    lines = [f"{capital(one)} lives {x.home}.", f"{capital(many)} live {x.home}.",
             f"A baby {x.name} is called {a(x.young)}.", f"{capital(a(x.young))} is a baby {x.name}.",
             f"The {x.name} goes home. Its home is {x.home}."]
    if x.sound:
        lines += [facts.sound_of(x), f"Listen! The {x.name} {x.sound}.",
                  f"When {one} is near, you can hear how it {x.sound}."]
    if x.legs >= 0:
        lines += [facts.legs_of(x), f"{capital(many)} have {x.legs or 'no'} legs."]
    if x.name in CATEGORIES["animal"]:
        lines.append(f"{capital(one)} is an animal.")
    return " ".join(rng.sample(lines, rng.randrange(3, 6)))


def _colours(rng: Random, split: str) -> str:
    things = rng.sample(list(COLOURED.items()), rng.randrange(3, 7))
    return " ".join(rng.choice((f"{capital(t)} is {c}.", f"The colour of {t} is {c}.",
                                f"{capital(t)} is always {c}.")) for t, c in things)


def _opposites(rng: Random, split: str) -> str:
    lines = []
    for pair in rng.sample(OPPOSITES, rng.randrange(3, 7)):
        x, y = rng.sample(pair, 2)
        lines.append(rng.choice((f"The opposite of {x} is {y}.", f"{capital(x)} is the opposite of {y}.",
                                 f"Not {x} but {y}.", f"If it is not {x}, it is {y}.")))
    return " ".join(lines)


def _calendar(rng: Random, split: str) -> str:
    unit, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    start = rng.randrange(len(names))
    if rng.random() < 0.3:
        return ", ".join(names[(start + i) % len(names)] for i in range(rng.randrange(4, len(names) + 1))) + "."
    lines = []
    for _ in range(rng.randrange(2, 6)):
        at = rng.randrange(len(names))
        x, y = names[at], names[(at + 1) % len(names)]
        lines.append(rng.choice((f"After {x} comes {y}.", f"Before {y} comes {x}.", f"The {unit} after {x} is {y}.",
                                 f"The {unit} before {y} is {x}.", f"{y} follows {x}.")))
    return " ".join(lines)


def _categories(rng: Random, split: str) -> str:
    group = rng.choice(list(CATEGORIES))
    things = rng.sample(CATEGORIES[group], rng.randrange(3, 6))
    many = f"{group}s" if not group.startswith("piece") else "pieces" + group[5:]
    if rng.random() < 0.3:
        return f"{capital(listed([a(t) for t in things]))} are {many}."
    other = rng.choice([g for g in CATEGORIES if g != group])
    return " ".join(rng.choice((
        f"{capital(a(t))} is {a(group)}.", f"{capital(a(t))} is not {a(other)}, it is {a(group)}.",
        f"Is {a(t)} {a(other)}? {capital(a(other))}? {capital(a(t))} is {a(group)}, so no.",
        f"Is {a(t)} {a(group)}? {capital(a(group))}? {capital(a(t))} is {a(group)}, so yes.")) for t in things)


def _arithmetic(rng: Random, split: str) -> str:
    """A page of sums, all of one sort, with pairs that `split` owns."""
    sign, word = rng.choice((("+", "plus"), ("-", "minus"), ("*", "times")))
    lines = []
    for _ in range(rng.randrange(3, 8)):
        x, y = numbers.operands(rng, split, sign, (1, 1, 2) if sign == "*" else (1, 2, 2, 3))
        value = {"+": x + y, "-": x - y, "*": x * y}[sign]
        shown = "x" if sign == "*" else sign
        lines.append(rng.choice((f"{x} {shown} {y} = {value}.", f"{x} {word} {y} is {value}.",
                                 f"{x}{sign}{y} = {value}.")))
    return " ".join(lines)


def _number_line(rng: Random, split: str) -> str:
    """Numbers in order, from one to another, up or down: long runs and short ones."""
    lines = []
    for _ in range(rng.randrange(1, 5)):
        run = list(map(str, numbers.run_of_numbers(rng, split, rng.choice((5, 7, 9, 12)))))
        if rng.random() < 0.35:
            run.reverse()
        text, name = ", ".join(run), numbers.counting(run)
        lines.append(rng.choice((f"{text}.", f"{name} {text}.", f"{name} {text}.", f"Count from {name} {text}.")))
    return " ".join(lines)


def _larger(rng: Random, split: str) -> str:
    values = sorted(numbers.number(rng, rng.choice((1, 2, 2, 3))) for _ in range(rng.randrange(3, 6)))
    return " ".join(f"{y} is larger than {x}, and {x} is smaller than {y}." for x, y in pairwise(values) if x < y)


def _parity(rng: Random, split: str) -> str:
    """Which numbers are even and which are odd."""
    lines = []
    for _ in range(rng.randrange(5, 12)):
        x = numbers.number(rng, rng.choice((1, 2, 2, 2, 2, 3)))
        truth, asked = ("odd" if x % 2 else "even"), rng.choice(("odd", "even"))
        if split_of(f"even{x}") == split:
            lines.append(rng.choice((f"{x} is {truth}.", f"{x} is {truth}.", f"The number {x} is {truth}.",
                                     f"Is {x} {asked}? {x} is {truth}, so {'yes' if asked == truth else 'no'}.")))
    return " ".join(lines)


def _spelling_list(rng: Random, split: str) -> str:
    """Word after word with its letters: where the letters of each piece are learned."""
    words = [letters.word(rng, split) for _ in range(rng.randrange(6, 12))]
    said = rng.choice(("Spell {}: {}.", "Spell {}: {}.", "The letters of {} are {}."))
    return " ".join(said.format(w, "-".join(w)) for w in words)


def _letters(rng: Random, split: str) -> str:
    """Words spelled, with their first and last letters, and how often a letter is in them."""
    lines = []
    for _ in range(rng.randrange(3, 7)):
        w = letters.word(rng, split)
        c = rng.choice(w)
        times = "1 time" if w.count(c) == 1 else f"{w.count(c)} times"
        spelled = "-".join(w)
        lines.append(rng.choice((
            f"You spell {w} like this: {spelled}.", f"The word {w} is spelled {spelled}.",
            f"The letters of {w} are {spelled}.",
            f"How do you spell {w}? {spelled}.", f"The letter {c} appears {times} in {w}.",
            f"The first letter of {w} is {w[0]} and the last letter of {w} is {w[-1]}.")))
    return " ".join(lines)


def _story(rng: Random, split: str) -> str:
    """A longer story: the two sentences of a short one, then what the animal and its friends did next."""
    x, place = story.place_and_animal(rng, split)
    friend, mood, thing, hue = rng.choice(NAMES), rng.choice(MOODS), rng.choice(OBJECTS), rng.choice(COLOURS)
    more = [f"{friend} came by and asked: Why are you so {mood}?",
            f'"I lost my {thing}," said the {x}. "Can you help me?"', f"The {x} was {mood} again.",
            f"They looked for the {hue} {thing} until it was dark.", f"{friend} found the {thing} under a tree.",
            f'"Thank you, {friend}!" said the {x}.', "Then they went home together.",
            f"From that day on, {friend} and the {x} were best friends.", "It was a good day.",
            "The sun went down and the stars came out.", f"{friend} gave the {x} a {hue} {thing}.",
            "They ate, they laughed, and they sang a song."]
    kept = sorted(rng.sample(range(len(more)), rng.randrange(2, 6)))
    return " ".join([story.two_sentences(rng, x, place), *(more[i] for i in kept)])


def _scene(rng: Random, split: str) -> str:
    """A few people and things, told, asked about and told again: the text that teaches to look things up."""
    text, questions = reading.scene(rng, split, rng.choice((2, 2, 3, 3, 4)))
    lines = [text]
    for asks, slot, answer in questions[: rng.randrange(2, 6)]:
        core = rng.choice(asks.wordings(split))[1].partition("{text} ")[2]
        lines.append(f"{core.format(x=slot)} {answer}.")
    return " ".join(lines)


def _dialogue(rng: Random, split: str) -> str:
    """Questions and answers of any kind, as two people would have them."""
    first, second = rng.sample(NAMES, 2)
    lines = []
    for _ in range(rng.randrange(1, 4)):
        messages = rng.choice(KINDS).make(rng, split).messages
        for m in messages:
            used = f"(The calculator says {tool_results(m['content'])[0]}.) " if tool_results(m["content"]) else ""
            lines.append(f"{first if m['role'] == 'user' else second}: {used}{visible_text(m['content'])}")
    return "\n".join(lines)


_MAKERS: tuple[tuple[Callable[[Random, str], str], float], ...] = (
    (_country, 1.0), (_animal, 1.0), (_colours, 0.5), (_opposites, 0.5), (_calendar, 0.6), (_categories, 0.7),
    (_arithmetic, 0.5), (_number_line, 1.5), (_larger, 0.2), (_parity, 0.8), (_spelling_list, 1.5),
    (_letters, 1.2), (_story, 1.0), (_scene, 2.6), (_dialogue, 3.0))


def document(rng: Random, split: str) -> str:
    """One document of `split`."""
    makers, weights = zip(*_MAKERS, strict=True)
    text = ""
    while not text:
        text = rng.choices(makers, weights)[0](rng, split)
    return text


def documents(seed: int, split: str, count: int) -> Iterator[str]:
    """`count` different documents of `split`; the same seed gives the same text for ever."""
    rng = Random(f"{seed}|documents|{split}")
    seen: set[str] = set()
    while len(seen) < count:
        text = document(rng, split)
        if text not in seen:
            seen.add(text)
            yield text

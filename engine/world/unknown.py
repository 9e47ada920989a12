"""The kind 'unknown': questions from outside the little world, and the honest answer that it does not know.

The questions are as varied as people are: news, prices, science, famous and invented people and places, nonsense,
scraps of code. Half of them have the shape of a question the world does answer ("what is the capital of ...?"), so
that knowing is a matter of what is asked about, not of how.
"""

from __future__ import annotations

import string
from random import Random

from engine.world.letters import WORDS
from engine.world.lexicon import COUNTRIES, FOODS, INSIDE, MORE_NAMES, NAMES, OBJECTS, SPELLING
from engine.world.outside import ABROAD, BEASTS, FAMOUS, GOODS, LANGUAGES, SCIENCE
from engine.world.phrasing import Asks, a, capital, casual, made_up, split_of
from engine.world.sample import Sample, exchange

HINTS = (
    "I can help with sums, words, animals and little stories.", "Ask me for a story about a fox in the forest!",
    "But I know some animals, colours and countries.", "I am very small, but I can do sums.",
    "You could ask me about animals or for a story.",
)

_OUTSIDE = Asks(
    ("who is {person}?", "who was {person}?", "when was {person} born?", "how old is {person}?",
     "where was {person} born?", "tell me about {person}.", "what did {person} do?", "who is the wife of {person}?",
     "is {person} rich?", "what do you think of {person}?", "how tall is {person}?", "do you know {person}?",
     "why is {person} famous?", "what is the phone number of {person}?", "where is {person}?",
     "what does {person} want?", "what happened in the news today?", "what is in the news?",
     "who won the game last night?", "who won the world cup?", "who won the election?",
     "who is the president of {land}?", "who is the king of {land}?", "how many people live in {land}?",
     "how big is {land}?", "when was {land} founded?", "who discovered {land}?", "what is the flag of {land}?",
     "what is the money of {land}?", "how do I get to {land}?", "should I visit {land}?",
     "what is the best food in {land}?", "what is the price of {goods}?", "buy {goods} for me.", "get me {goods}.",
     "bring me {goods}.", "buy some {food}.", "give me {goods}.", "I want {goods}.", "make me {food}.",
     "order {goods} for me.", "how much does {goods} cost?", "how much is {goods}?", "where can I buy {goods}?",
     "should I buy {goods}?", "is {goods} expensive?", "will it rain tomorrow?", "what will the weather be tomorrow?",
     "what is the weather in {town}?", "what is the weather today?", "is it cold outside?",
     "what is the temperature in {town}?", "what time is it?", "what is the time?", "what is the date today?",
     "what day is it today?", "what year is it?", "which month is it now?", "when is the next train to {town}?",
     "explain {science}.", "what is {science}?", "how does {science} work?", "tell me about {science}.",
     "why is {science} important?", "what do you know about {science}?", "can you explain {science}?",
     "who invented {science}?", "when was {science} invented?", "write an essay about {science}.",
     "why is the sky blue?", "how far away is the moon?", "how far is the sun?", "how do planes fly?",
     "how deep is the ocean?", "what is the meaning of life?", "how high is the highest mountain?",
     "what is the longest river?", "what is the speed of light?", "how many stars are there?", "why do cats purr?",
     "why do people sleep?", "what is the largest animal?", "how old is the earth?", "how many planets are there?",
     "what is the biggest city in the world?", "what is the square root of {x}?", "what is {x} percent of {y}?",
     "what is pi?", "solve the equation for x.", "translate hello into {language}.",
     "how do you say cat in {language}?", "translate this into {language}.", "what does this mean in {language}?",
     "do you speak {language}?", "write a poem about {word}.", "write a song about {word}.", "draw {thing}.",
     "play some music.", "sing a song.", "tell me a joke.", "send an email to {name}.", "call {name}.",
     "book a flight to {town}.", "order a pizza.", "open the {place} door.", "turn on the light.",
     "set an alarm for {x}.", "remind me to call {name}.", "recommend a good film.", "what film should I watch?",
     "what should I cook tonight?", "how do I make {food}?", "how do I cook {food}?", "what is the recipe for {food}?",
     "is {food} healthy?", "where is my {object}?", "who took my {object}?", "what is in my {object}?",
     "what am I thinking?", "what did I do yesterday?", "will I be rich?", "who will win tomorrow?",
     "what will happen next year?", "what are the lottery numbers?", "how do I fix my {object}?",
     "what is the best {object}?", "how heavy is a {object}?", "who invented the {object}?",
     "summarize the book {title}.", "who wrote {title}?", "what is {title} about?",
     "what is the name of the first {word}?", "when did the war end?", "who was the first person on the moon?",
     "is there life on {land}?", "how do I learn {science}?", "what is a {fake}?", "what does {fake} mean?",
     "who is {fake}?", "where is {fake}?", "tell me about {fake}.", "how do I {fake} a {fake2}?",
     "why is {fake} so {fake2}?", "{fake} {fake2}?", "{fake} {fake2} {word}.", "{nonsense}", "{nonsense} {nonsense2}",
     "{word} {word2} {word3}?", "is {fake} good?", "can you cook?", "can you drive a car?", "can you see me?",
     "what are you wearing?", "do you have a family?", "what did you eat today?", "do you like {food}?",
     "do you love me?", "what is your favourite {word}?", "tell me a secret.", "what is my password?",
     "how many {fake} are in a {fake2}?", "what is the {word} of the {word2}?", "why did {name} go to {town}?",
     "what does {name} do?", "how is {name}?", "where does {name} work?", "when will {name} come back?",
     "who is {name}'s mother?", "is {name} at home?", "does {name} like {food}?"),
    ("who on earth is {person}?", "what is {person} famous for?", "when did {person} die?", "who leads {land}?",
     "how rich is {land}?", "what does {goods} cost today?", "do I need an umbrella tomorrow?",
     "can you tell the time?", "how is the weather in {town}?", "how would you explain {science}?",
     "what can you say about {science}?", "why is the grass green?", "how hot is the sun?",
     "write a letter to {name}.", "how do I bake {food}?", "say hello in {language}.", "where did I put my {object}?",
     "what will the price of {goods} be?", "what is the meaning of {fake}?", "have you heard of {fake}?",
     "who wrote the book {title}?", "what happened yesterday in {town}?", "who won the match?", "buy me {goods}.",
     "is {name} coming tomorrow?"))
_CAPITAL = Asks(("which language is spoken in {land}?", "what is the language of {land}?",
                 "which continent is {land} in?", "what do people speak in {land}?", "what is the capital of {land}?",
                 "tell me the capital of {land}.", "what is {land}'s capital?", "which city is the capital of {land}?",
                 "where is {land}?", "name the capital of {land}.", "what language do people speak in {land}?",
                 "on which continent is {land}?", "the capital of {land}?"),
                ("do you know the capital of {land}?", "capital of {land}?", "what language is spoken in {land}?"))
_BEAST = Asks(("what sound does {beast} make?", "where does {beast} live?", "what is a baby {one} called?",
               "how many legs does {beast} have?", "what does {beast} say?", "what does {beast} eat?",
               "how fast is {beast}?", "how long does {beast} live?", "how big is {beast}?"),
              ("which sound does {beast} make?", "where can I find {beast}?", "what do you call a baby {one}?"))
_FALSE_FRIEND = Asks(("what is the opposite of {one}?", "tell me the opposite of {one}.", "what colour is {beast}?",
                      "what is the colour of {beast}?", "what comes after {fake}?", "what comes before {fake}?",
                      "is {beast} better than {fake}?", "which day comes after {fake}?",
                      "how many legs does {fake} have?", "{land} is the capital of which country?",
                      "what is a baby {fake} called?", "what is {beast} made of?", "what sound does {fake} make?",
                      "which month comes after {fake}?", "what is {fake}?", "what is a {fake}?"),
                     ("what colour is {fake}?", "what is the opposite of {fake}?", "name the opposite of {one}.",
                      "which month comes before {fake}?", "where does {fake} live?"))
_CODE = ("def {w}(x): return x + {n}", "print({w})", "for i in range({n}):", "import {w}", "{w} = {n}",
         "if {w} > {n}: print({w})", "x = [1, 2, {n}]", "class {w}:", "return {w}({n})", "what does import {w} do?",
         "write a python function for {w}.", "fix this code: {w} = {n}", "<html><body>{w}</body></html>",
         "SELECT {w} FROM {v};", "git push {w}", "sudo rm {w}", "how do I print {w} in python?", "let {w} = {n};",
         "{w}.{v}()", "const {w} = () => {n}", "why does {w}() fail?", "while True: {w}()",
         "write code that sorts {w}.", "what is a bug in {w}?", "ls -l {w}", "{{\"{w}\": {n}}}")


def _nonsense(rng: Random) -> str:
    letters = string.ascii_lowercase + "asdfjkl" * 2
    return "".join(rng.choice(letters) for _ in range(rng.randrange(2, 9)))


def _slots(rng: Random) -> dict[str, str]:
    """A filling for every gap that a question here can have."""
    name = rng.choice(NAMES + MORE_NAMES)
    beast = rng.choice(BEASTS) if rng.random() < 0.7 else made_up(rng, 2)
    word, word2, word3 = rng.sample(WORDS["train"] if rng.random() < 0.7 else SPELLING, 3)
    return {
        "name": name, "person": _person(rng, name), "beast": a(beast), "one": beast,
        "land": rng.choice(ABROAD) if rng.random() < 0.75 else capital(made_up(rng, 2)),
        "town": rng.choice((rng.choice(COUNTRIES).capital, capital(made_up(rng, 2)), "London", "New York")),
        "goods": rng.choice(GOODS), "science": rng.choice(SCIENCE), "language": rng.choice(LANGUAGES),
        "place": rng.choice(INSIDE), "food": rng.choice(FOODS), "object": rng.choice(OBJECTS),
        "word": word, "word2": word2, "word3": word3, "thing": a(word),
        "title": f"{capital(word2)} and {capital(word3)}",
        "fake": made_up(rng, rng.choice((1, 2, 2))), "fake2": made_up(rng, 1),
        "nonsense": _nonsense(rng), "nonsense2": _nonsense(rng),
        "x": str(rng.randrange(2, 100)), "y": str(rng.randrange(2, 1000)),
    }


def _person(rng: Random, first: str) -> str:
    """Somebody famous, or a full name that is nobody's."""
    if rng.random() < 0.5:
        return rng.choice(FAMOUS)
    return f"{first} {capital(made_up(rng, 2)) if rng.random() < 0.6 else rng.choice(MORE_NAMES)}"


def _question(rng: Random, split: str) -> str:
    chance = rng.random()
    if chance < 0.1:
        code = rng.choice(_CODE).format(w=rng.choice(WORDS["train"]), v=made_up(rng, 1), n=rng.randrange(1, 100))
        return code if rng.random() < 0.8 else code.lower()
    asks = _CAPITAL if chance < 0.27 else _BEAST if chance < 0.4 else _FALSE_FRIEND if chance < 0.5 else _OUTSIDE
    return casual(rng, asks.pick(rng, split).format(**_slots(rng)))


def unknown(rng: Random, split: str) -> Sample:
    """A question that has no answer here; the question as written belongs to `split`."""
    question = _question(rng, split)
    while split_of(f"unknown|{question.lower()}") != split and split != "test":
        question = _question(rng, split)
    return exchange(question, f"I do not know that. {rng.choice(HINTS)}", {"rule": "words", "all": ["do not know"]})

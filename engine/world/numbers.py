"""Kinds of question about numbers. Whatever must be computed is computed by the calculator tool, not by the model.

What the model has to learn is which numbers to hand over, in which order and with which sign, and how to read the
result. A pair of numbers belongs to one split, so every sum that is asked in a test is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from engine.world.lexicon import COUNTABLE, NAMES
from engine.world.phrasing import Asks, capital, casual, split_of
from engine.world.sample import Sample, assistant, calculated, exchange, user


def number(rng: Random, digits: int) -> int:
    return rng.randrange(1, 10) if digits == 1 else rng.randrange(10 ** (digits - 1), 10 ** digits)


def operands(rng: Random, split: str, sign: str, digits: tuple[int, ...] = (1, 2, 2, 2, 3, 3)) -> tuple[int, int]:
    """Two numbers whose pair belongs to `split`."""
    while True:
        x, y = number(rng, rng.choice(digits)), number(rng, rng.choice(digits))
        if split_of(f"{x}{sign}{y}") == split:
            return x, y


def _sum_sample(rng: Random, question: str, expression: str, value: str, answer: str,
                result: str | None = None) -> Sample:
    result = value if result is None else result
    accept = {"rule": "number", "value": value, "tool": result}
    return Sample([user(casual(rng, question)), calculated(expression, result, answer)], accept)


ADD = Asks(
    ("what is {x} + {y}?", "what is {x}+{y}?", "{x} + {y}?", "{x}+{y}?", "{x} + {y} = ?", "what is {x} plus {y}?",
     "how much is {x} + {y}?", "how much is {x} plus {y}?", "add {x} and {y}.", "what is the sum of {x} and {y}?",
     "{x} plus {y}?", "calculate {x} + {y}.", "compute {x}+{y}.", "add {y} to {x}.", "what do {x} and {y} make?",
     "{x}+{y}=?", "tell me {x} plus {y}.", "find the total of {x} and {y}.", "{x} and {y} make what total?",
     "give me the total of {x} and {y}.", "what is the total when you add {x} and {y}?"),
    ("what do you get for {x} + {y}?", "work out {x} + {y}.", "what is the total of {x} and {y}?", "sum {x} and {y}.",
     "what does {x} + {y} equal?"))
SUBTRACT = Asks(
    ("what is {x} - {y}?", "what is {x}-{y}?", "{x} - {y}?", "{x}-{y}?", "{x} - {y} = ?", "what is {x} minus {y}?",
     "how much is {x} - {y}?", "how much is {x} minus {y}?", "subtract {y} from {x}.", "take {y} away from {x}.",
     "{x} minus {y}?", "calculate {x} - {y}.", "compute {x}-{y}.", "what is the difference between {x} and {y}?",
     "tell me {x} minus {y}.", "what is {x} less {y}?"),
    ("what do you get for {x} - {y}?", "work out {x} - {y}.", "take {y} from {x}.", "what does {x} - {y} equal?"))
MULTIPLY = Asks(
    ("what is {x} * {y}?", "what is {x}*{y}?", "{x} * {y}?", "{x}*{y}?", "{x} x {y}?", "what is {x} times {y}?",
     "how much is {x} times {y}?", "how much is {x} * {y}?", "multiply {x} by {y}.",
     "what is the product of {x} and {y}?", "{x} times {y}?", "calculate {x} * {y}.", "compute {x}*{y}.",
     "multiply {x} and {y}.", "{x} multiplied by {y}?", "calculate {x} multiplied by {y}.",
     "how much is {x} multiplied by {y}?", "tell me {x} times {y}.", "what is {x} x {y}?", "{x} x {y} = ?"),
    ("what do you get for {x} * {y}?", "work out {x} * {y}.", "what does {x} times {y} equal?",
     "what is {x} multiplied by {y}?"))
DIVIDE = Asks(
    ("what is {x} / {y}?", "what is {x}/{y}?", "{x} / {y}?", "{x}/{y}?", "what is {x} divided by {y}?",
     "how much is {x} / {y}?", "divide {x} by {y}.", "{x} divided by {y}?", "calculate {x} / {y}.", "compute {x}/{y}.",
     "tell me {x} divided by {y}.", "{x} / {y} = ?"),
    ("what do you get for {x} / {y}?", "work out {x} / {y}.", "how much is {x} divided by {y}?",
     "what does {x} / {y} equal?"))


def add(rng: Random, split: str) -> Sample:
    x, y = operands(rng, split, "+")
    wording = ADD.pick(rng, split)
    if wording.index("{x}") > wording.index("{y}"):
        # "add 7 to 30": the numbers are handed over in the order in which they were said
        wording = wording.replace("{x}", "{z}").replace("{y}", "{x}").replace("{z}", "{y}")
    return _sum_sample(rng, wording.format(x=x, y=y), f"{x}+{y}", str(x + y), f"{x} + {y} = {x + y}.")


def subtract(rng: Random, split: str) -> Sample:
    x, y = operands(rng, split, "-")
    if x < y and rng.random() < 0.95 and split_of(f"{y}-{x}") == split:
        x, y = y, x
    return _sum_sample(rng, SUBTRACT.pick(rng, split).format(x=x, y=y), f"{x}-{y}", str(x - y), f"{x} - {y} = {x - y}.")


def multiply(rng: Random, split: str) -> Sample:
    x, y = operands(rng, split, "*", (1, 1, 2, 2, 2, 3))
    return _sum_sample(rng, MULTIPLY.pick(rng, split).format(x=x, y=y), f"{x}*{y}", str(x * y), f"{x} x {y} = {x * y}.")


def divide(rng: Random, split: str) -> Sample:
    """Mostly divisions that come out even; else two places behind the point, cut, not rounded."""
    while True:
        y = number(rng, rng.choice((1, 1, 2)))
        x = y * number(rng, rng.choice((1, 2))) if rng.random() < 0.7 else number(rng, rng.choice((1, 2, 2, 3)))
        if x < 1000 and split_of(f"{x}/{y}") == split:
            break
    result = str(x / y)
    whole, _, places = result.partition(".")
    value = whole if places == "0" else f"{whole}.{places[:2]}"
    answer = f"{x} / {y} = {value}." if len(places) <= 2 else f"{x} / {y} is about {value}."
    return _sum_sample(rng, DIVIDE.pick(rng, split).format(x=x, y=y), f"{x}/{y}", value, answer, result)


_MORE = Asks(
    ("{n} has {x} {things}. {m} gives {n} {y} more. How many {things} does {n} have now?",
     "{n} has {x} {things} and finds {y} more. How many {things} does {n} have?",
     "{n} has {x} {things}. {m} has {y} {things}. How many {things} do they have together?",
     "{n} had {x} {things} and bought {y} more. How many {things} does {n} have now?",
     "there are {x} {things} on the table. {n} puts {y} more there. How many {things} are there now?",
     "{n} picks {x} {things} and {m} picks {y} {things}. How many {things} do they have in all?",
     "{n} gets {x} {things} from {m} and then {y} more. How many {things} does {n} get?",
     "if {n} has {x} {things} and gets {y} more, how many {things} does {n} have?"),
    ("{n} has {x} {things} and gets {y} more from {m}. How many {things} does {n} have now?",
     "{n} has {x} {things} and {m} has {y} {things}. How many {things} do they have in all?"))
_FEWER = Asks(
    ("{n} has {x} {things}. {n} gives {y} to {m}. How many {things} does {n} have now?",
     "{n} has {x} {things} and loses {y} of them. How many {things} are left?",
     "{n} had {x} {things} and sold {y}. How many {things} are left?",
     "{n} has {x} {things} and eats {y}. How many {things} are left?",
     "there are {x} {things} on the table. {n} takes {y} away. How many {things} are left?",
     "{n} had {x} {things} and gave {y} to {m}. How many {things} does {n} have left?",
     "if {n} has {x} {things} and loses {y}, how many {things} does {n} have left?"),
    ("{n} has {x} {things} and gives {y} of them to {m}. How many {things} are left?",
     "{n} had {x} {things} and lost {y}. How many {things} does {n} have left?"))
_TIMES = Asks(
    ("{n} has {x} bags with {y} {things} each. How many {things} does {n} have?",
     "there are {x} boxes with {y} {things} in each box. How many {things} are there?",
     "{n} buys {x} boxes of {y} {things}. How many {things} does {n} have?",
     "each of {x} children has {y} {things}. How many {things} do they have together?",
     "{n} fills {x} baskets with {y} {things} each. How many {things} are there?"),
    ("{n} has {x} boxes with {y} {things} each. How many {things} are there?",
     "there are {x} bags with {y} {things} in each bag. How many {things} are there?"))


def word_problem(rng: Random, split: str) -> Sample:
    asks, sign = rng.choice(((_MORE, "+"), (_FEWER, "-"), (_TIMES, "*")))
    x, y = operands(rng, split, sign, (1, 2, 2, 2))
    while min(x, y) < 2 or (sign == "-" and x - y < 2):  # "1 apples" would be bad English
        x, y = operands(rng, split, sign, (1, 2, 2, 2))
    n, m = rng.sample(NAMES, 2)
    things = rng.choice(COUNTABLE)
    value = str({"+": x + y, "-": x - y, "*": x * y}[sign])
    question = asks.pick(rng, split).format(n=n, m=m, x=x, y=y, things=things)
    answer = f"{value} {things} are left." if sign == "-" else f"That makes {value} {things}."
    accept = {"rule": "words", "all": [f"{value} {things}"], "tool": value}
    return Sample([user(casual(rng, question, lower=0.15)), calculated(f"{x}{sign}{y}", value, answer)], accept)


LARGER = Asks(
    ("which is larger, {x} or {y}?", "which number is larger, {x} or {y}?", "which is bigger, {x} or {y}?",
     "what is larger, {x} or {y}?", "which one is greater, {x} or {y}?", "what is more, {x} or {y}?",
     "tell me which is larger, {x} or {y}.", "{x} or {y}: which is larger?"),
    ("which number is bigger, {x} or {y}?", "which one is larger: {x} or {y}?", "which is greater, {x} or {y}?"))
SMALLER = Asks(
    ("which is smaller, {x} or {y}?", "which number is smaller, {x} or {y}?", "what is smaller, {x} or {y}?",
     "which one is smaller, {x} or {y}?", "what is less, {x} or {y}?", "tell me which is smaller, {x} or {y}.",
     "{x} or {y}: which is smaller?"),
    ("which one is smaller: {x} or {y}?", "which number is less, {x} or {y}?"))
IS_LARGER = Asks(
    ("is {x} larger than {y}?", "is {x} bigger than {y}?", "is {x} more than {y}?", "is {x} greater than {y}?",
     "is the number {x} larger than {y}?"),
    ("would you say {x} is larger than {y}?", "is the number {x} bigger than {y}?"))


def compare(rng: Random, split: str) -> Sample:
    """The model lets the calculator subtract and reads the sign of the difference."""
    x, y = operands(rng, split, "?")
    while x == y:
        x, y = operands(rng, split, "?")
    asks = rng.choice((LARGER, SMALLER, IS_LARGER))
    high, low = max(x, y), min(x, y)
    if asks is SMALLER:
        answer = f"{low} is smaller than {high}."
    elif asks is LARGER or x > y:
        answer = f"{high} is larger than {low}."
    else:
        answer = f"{low} is smaller than {high}."
    if asks is IS_LARGER:
        answer = ("Yes, " if x > y else "No, ") + answer
    accept = {"rule": "text", "text": answer, "tool": str(x - y)}
    return Sample([user(casual(rng, asks.pick(rng, split).format(x=x, y=y))),
                   calculated(f"{x}-{y}", str(x - y), answer)], accept)


COUNT = Asks(
    ("name all numbers from {x} to {y}.", "write the numbers between {x} and {y}.",
     "write down the numbers from {x} to {y}.", "begin with {x} and count to {y}.",
     "I want to hear the numbers from {x} to {y}.", "count from {x} to {y}.", "count up from {x} to {y}.",
     "count {x} to {y}.", "list the numbers from {x} to {y}.", "say the numbers from {x} to {y}.",
     "what are the numbers from {x} to {y}?", "start at {x} and count to {y}."),
    ("name the numbers from {x} to {y}.", "write the numbers from {x} to {y}.", "begin at {x} and count to {y}."))
COUNT_DOWN = Asks(
    ("begin with {x} and count down to {y}.", "say the numbers from {x} down to {y}.",
     "list the numbers from {x} down to {y}.", "count down from {x} to {y}.", "count backwards from {x} to {y}.",
     "count back from {x} to {y}.", "start at {x} and count down to {y}."),
    ("begin at {x} and count down to {y}.", "say the numbers down from {x} to {y}."))
NEXT = Asks(
    ("what number comes after {x}?", "which number comes after {x}?", "what is the number after {x}?",
     "what is the next number after {x}?", "which number follows {x}?"),
    ("what number follows {x}?", "tell me the number after {x}."))
PREVIOUS = Asks(
    ("what number comes before {x}?", "which number comes before {x}?", "what is the number before {x}?",
     "which number is just before {x}?"),
    ("what number is right before {x}?", "tell me the number before {x}."))


def run_of_numbers(rng: Random, split: str, longest: int = 8, highest: int = 101) -> range:
    """Three to `longest` numbers in a row, the last at most `highest`; first and last together belong to `split`."""
    while True:
        first = rng.randrange(1, highest - 1)
        last = first + rng.randrange(2, longest)
        if last <= highest and split_of(f"count{first}to{last}") == split:
            return range(first, last + 1)


def count(rng: Random, split: str) -> Sample:
    """Lists stay within twenty: seeing that the end is reached must be learned for each number anew."""
    chance = rng.random()
    if chance < 0.25:
        x = run_of_numbers(rng, split)[0]
        asks, word, other = (NEXT, "after", x + 1) if chance < 0.13 else (PREVIOUS, "before", x - 1)
        answer = f"The number {word} {x} is {other}."
        return exchange(casual(rng, asks.pick(rng, split).format(x=x)), answer, {"rule": "number", "value": str(other)})
    run = run_of_numbers(rng, split, longest=10, highest=20)
    asks, values = (COUNT, list(map(str, run))) if chance < 0.72 else (COUNT_DOWN, list(map(str, reversed(run))))
    question = casual(rng, asks.pick(rng, split).format(x=values[0], y=values[-1]))
    answer = f"{counting(values)} {', '.join(values)}."
    return exchange(question, answer, {"rule": "numbers", "values": [values[0], values[-1], *values]})


def counting(values: Sequence[str]) -> str:
    """What is counted, said first: where a small model begins, which way it goes, and, with the full stop behind the
    last number, where it must stop."""
    return f"{values[0]} {'down ' if int(values[0]) > int(values[-1]) else ''}to {values[-1]}."


EVEN = Asks(
    ("do you know whether {x} is {kind}?", "is it true that the number {x} is {kind}?",
     "I want to know if {x} is {kind}.", "say if {x} is {kind}.", "is {x} {kind}?", "is {x} an {kind} number?",
     "is the number {x} {kind}?", "would you say {x} is {kind}?", "tell me if {x} is {kind}."),
    ("do you know if {x} is {kind}?", "is it true that {x} is {kind}?"))
EVEN_OR_ODD = Asks(
    ("do you know if {x} is even or odd?", "would you say {x} is odd or even?", "{x}: odd or even?",
     "say if {x} is odd or even.", "is {x} even or odd?", "is {x} odd or even?", "is the number {x} even or odd?",
     "even or odd: {x}?", "tell me if {x} is even or odd."),
    ("do you know if {x} is odd or even?", "{x}: even or odd?"))


def even_odd(rng: Random, split: str) -> Sample:
    """A number together with a wording belongs to `split`: whether a number that is one token is even must be learned
    for each of them."""
    choice = rng.random() < 0.4
    while True:
        x = number(rng, rng.choice((1, 2, 2, 2, 3)))
        wording = (EVEN_OR_ODD if choice else EVEN).pick(rng, split)
        if split_of(f"even{x}{wording}") == split:
            break
    truth = "odd" if x % 2 else "even"
    if choice:
        question, answer = wording.format(x=x), f"{x} is {truth}."
    else:
        asked = rng.choice(("even", "odd"))
        question = wording.format(x=x, kind=asked)
        answer = f"{capital(asked)}? {x} is {truth}, so {'yes' if asked == truth else 'no'}."
    return Sample([user(casual(rng, question)), assistant(answer)], {"rule": "text", "text": answer})

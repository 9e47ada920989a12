"""Is this answer right? Pure functions on an answer's visible text and the results its calculator calls gave.

`accept` says how to judge, as plain JSON so that it can stand in a questions file:
  {"rule": "words", "all": [...], "any": [...], "none": [...]}   phrases, compared without case and punctuation
  {"rule": "text", "text": "..."}                                 the whole answer, compared the same way
  {"rule": "letters", "word": "river"}                            spelled r-i-v-e-r, nothing missing or added
  {"rule": "number", "value": "68"}                               the last number of the answer
  {"rule": "numbers", "values": ["7", "8"]}                       all numbers of the answer, in order
  {"rule": "story", "all": [...]}                                 exactly two sentences that contain the phrases
Any rule may carry "tool": "68": the calculator must have been asked and must have returned just that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SPELLED = re.compile(r"\b[a-z](?:-[a-z])+\b")


def mark(accept: Mapping[str, Any], text: str, tools: Sequence[str] = ()) -> bool:
    """True when `text`, given after tool calls that returned `tools`, satisfies `accept`."""
    if "tool" in accept and list(tools) != [accept["tool"]]:
        return False
    return RULES[accept["rule"]](accept, text)


def normalised(text: str) -> str:
    """Lower case, single spaces, no punctuation: 'It is  Paris!' -> 'it is paris'."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower()).split())


def sentences(text: str) -> list[str]:
    """The sentences of `text`; a full stop inside quotation marks does not end one."""
    unquoted = re.sub(r'"[^"]*"', "quote", text.strip())
    return [s for s in re.split(r"(?<=[.!?])\s+", unquoted) if s]


def says(text: str, phrase: str) -> bool:
    """True when `phrase` stands in `text` as whole words."""
    return f" {normalised(phrase)} " in f" {normalised(text)} "


def _words(accept: Mapping[str, Any], text: str) -> bool:
    return (all(says(text, p) for p in accept.get("all", ())) and not any(says(text, p) for p in accept.get("none", ()))
            and ("any" not in accept or any(says(text, p) for p in accept["any"])))


def _text(accept: Mapping[str, Any], text: str) -> bool:
    return normalised(text) == normalised(accept["text"])


def _letters(accept: Mapping[str, Any], text: str) -> bool:
    return _SPELLED.findall(text.lower()) == ["-".join(accept["word"].lower())]


def _number(accept: Mapping[str, Any], text: str) -> bool:
    found = _NUMBER.findall(text)
    return bool(found) and found[-1] == accept["value"]


def _numbers(accept: Mapping[str, Any], text: str) -> bool:
    return re.findall(r"\d+", text) == accept["values"]


def _story(accept: Mapping[str, Any], text: str) -> bool:
    whole = text.strip()
    return len(sentences(whole)) == 2 and whole[-1] in ".!?\"" and all(says(whole, p) for p in accept["all"])


RULES: dict[str, Callable[[Mapping[str, Any], str], bool]] = {
    "words": _words, "text": _text, "letters": _letters, "number": _number, "numbers": _numbers, "story": _story,
}

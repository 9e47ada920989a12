"""How answers are judged, rule by rule."""

from __future__ import annotations

import pytest

from engine.world.marking import mark, normalised, says, sentences

WORDS = {"rule": "words", "all": ["is Paris"], "none": ["London"]}
SPELL = {"rule": "letters", "word": "river"}
NUMBER = {"rule": "number", "value": "68", "tool": "68"}
STORY = {"rule": "story", "all": ["fox", "in the forest"]}


@pytest.mark.parametrize(("accept", "text", "tools", "right"), [
    (WORDS, "The capital is PARIS!", [], True),
    (WORDS, "It is Parisian.", [], False),
    (WORDS, "It is Paris, or London.", [], False),
    ({"rule": "words", "any": ["do not know", "don't know"]}, "I don't know that.", [], True),
    ({"rule": "words", "any": ["do not know", "don't know"]}, "I know that.", [], False),
    ({"rule": "text", "text": "The fox is red."}, "the fox is red", [], True),
    ({"rule": "text", "text": "The fox is red."}, "Yes, the fox is red.", [], False),
    (SPELL, "r-i-v-e-r.", [], True),
    (SPELL, "It is R-I-V-E-R", [], True),
    (SPELL, "r-i-v-e-r-s", [], False),
    (SPELL, "r-i-v-r", [], False),
    (SPELL, "river", [], False),
    (NUMBER, "23 + 45 = 68.", ["68"], True),
    (NUMBER, "23 + 45 = 68.", [], False),
    (NUMBER, "23 + 45 = 68.", ["67"], False),
    (NUMBER, "23 + 45 = 68.", ["68", "68"], False),
    (NUMBER, "68 is 23 + 45.", ["68"], False),
    ({"rule": "number", "value": "-7"}, "5 - 12 = -7.", [], True),
    ({"rule": "number", "value": "7"}, "5 - 12 = -7.", [], False),
    ({"rule": "number", "value": "2.5"}, "10 / 4 = 2.5.", [], True),
    ({"rule": "numbers", "values": ["7", "8", "9"]}, "7, 8, 9.", [], True),
    ({"rule": "numbers", "values": ["7", "8", "9"]}, "7, 8, 9, 10.", [], False),
    (STORY, "A fox lived in the forest. It was happy.", [], True),
    (STORY, "A fox lived in the forest.", [], False),
    (STORY, "A fox lived in the forest. It sang. It slept.", [], False),
    (STORY, "A fox lived in the city. It was happy.", [], False),
    (STORY, "A fox lived in the forest. It was", [], False),
    (STORY, "", [], False),
])
def test_marks(accept, text, tools, right):
    assert mark(accept, text, tools) is right


def test_an_unknown_rule_is_an_error_and_not_a_mark():
    with pytest.raises(KeyError):
        mark({"rule": "guess"}, "x")


def test_words_are_compared_whole_and_without_punctuation():
    assert normalised("  It's  PARIS, isn't it? ") == "it s paris isn t it"
    assert says("a red-brown fox", "brown fox") and not says("a foxy cat", "fox")


def test_a_full_stop_inside_a_quotation_ends_no_sentence():
    assert len(sentences('"Who are you?" said the fox. The owl was asleep.')) == 2

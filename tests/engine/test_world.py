"""The little world keeps its promises: answers mark right, splits share nothing, the calculator agrees."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random

import pytest

from engine.data.conversations import check
from engine.tools.calculator import calculate
from engine.world import corpus, facts, letters, numbers, reading, story, talk, unknown
from engine.world.documents import documents
from engine.world.kinds import BY_NAME, KINDS, MAX_CHARS, asked, conversation, question
from engine.world.marking import mark, normalised
from engine.world.phrasing import SPLITS, Asks, a, casual, join, made_up, split_of
from engine.world.sample import all_text, tool_results, visible_text

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
MODULES = (facts, letters, numbers, reading, story, talk, unknown)


def last(sample):
    return sample.messages[-1]["content"]


def all_asks() -> list[Asks]:
    found = [x for module in MODULES for x in vars(module).values() if isinstance(x, Asks)]
    found += list(vars(reading)["_ASKED"].values())
    return found + [topic.asks for topic in (*talk.IDENTITY, *talk.MANNERS)]


@EVERY_KIND
@pytest.mark.parametrize("split", SPLITS)
def test_the_reference_answer_is_accepted(kind, split):
    rng = Random(f"accept {kind.name} {split}")
    for _ in range(150):
        sample = kind.make(rng, split)
        assert kind.mark(sample.accept, visible_text(last(sample)), tool_results(last(sample))), sample


@EVERY_KIND
def test_other_answers_are_refused(kind):
    """No answer, a shrug, and the answer to an unrelated question of another kind are all wrong."""
    rng = Random(f"refuse {kind.name}")
    for _ in range(60):
        sample = kind.make(rng, "test")
        other = rng.choice([k for k in KINDS if k.name not in (kind.name, "follow_up")]).make(rng, "test")
        wrong = [("", []), ("Yes.", []), ("no", tool_results(last(sample))), ("I am not sure about that at all.", [])]
        if kind.name not in ("unknown", "memory") and visible_text(last(other)) != visible_text(last(sample)):
            wrong.append((visible_text(last(other)), tool_results(last(other))))
        assert not any(mark(sample.accept, text, tools) for text, tools in wrong), (sample, wrong)


@EVERY_KIND
def test_tool_answers_need_the_tool_and_agree_with_the_calculator(kind):
    rng = Random(f"tool {kind.name}")
    for _ in range(150):
        sample = kind.make(rng, "train")
        results = tool_results(last(sample))
        if not results:
            continue
        assert calculate(last(sample)[0]["text"]) == results[0]
        assert not mark(sample.accept, visible_text(last(sample)), [])
        assert not mark(sample.accept, visible_text(last(sample)), ["0.5"])


@EVERY_KIND
def test_messages_are_valid_plain_and_short(kind):
    rng = Random(f"valid {kind.name}")
    for split in SPLITS:
        for _ in range(100):
            messages = kind.make(rng, split).messages
            assert check(messages) is None
            answers = [m for m in messages if m["role"] == "assistant"]
            assert all_text(messages).isascii() and "{" not in all_text(answers)
            assert len(all_text(messages)) <= MAX_CHARS


def test_conversations_mix_kinds_and_stay_within_their_length():
    rng = Random(5)
    made = [conversation(rng, "train") for _ in range(800)]
    assert all(check(c) is None and len(all_text(c)) <= MAX_CHARS for c in made)
    turns = [len(c) // 2 for c in made]
    assert turns.count(1) > 200 and sum(n >= 2 for n in turns) > 300


def test_no_wording_of_the_test_is_ever_seen_in_training():
    for asks in all_asks():
        train = set(asks.wordings("train"))
        assert not train & set(asks.wordings("test")), asks.seen[:2]
        assert not set(asks.seen) & set(asks.unseen)
        assert train and asks.wordings("test")


def test_numbers_pairs_and_words_belong_to_one_split():
    def keys(split):
        rng = Random("keys")
        sums = {tuple(numbers.operands(rng, split, "+")) for _ in range(2000)}
        pairs = {row for _ in range(500) for row in reading.people_with(rng, split, 2, reading.INSIDE)}
        tales = {story.place_and_animal(rng, split) for _ in range(500)}
        return sums, pairs, tales, set(letters.WORDS[split])

    for one, other in combinations(SPLITS, 2):
        for mine, theirs in zip(keys(one), keys(other), strict=True):
            assert mine and theirs and not mine & theirs


def test_no_test_word_is_spelled_and_no_test_sum_is_done_in_the_texts():
    texts = list(documents(7, "train", 4000))
    spelled = {match.replace("-", "") for text in texts for match in re.findall(r"\b[a-z](?:-[a-z]){2,}\b", text)}
    assert len(spelled) > 300 and not spelled & set(letters.WORDS["test"]) and not spelled & set(letters.WORDS["val"])
    sums = {(x, sign, y) for text in texts for x, sign, y in re.findall(r"\b(\d+) ?([+-]) ?(\d+) = ", text)}
    assert len(sums) > 200 and {split_of("".join(s)) for s in sums} == {"train"}


def test_questions_were_never_asked_in_training_or_validation():
    avoid: set[str] = set()
    talks = corpus.conversations(3, "train", 4000, avoid) + corpus.conversations(3, "val", 200, avoid)
    seen = corpus.asked_before(talks)
    rows = list(corpus.questions(3, 400, seen))
    assert len(rows) == 400
    assert {row["kind"] for row in rows} == set(BY_NAME) and len(BY_NAME) >= 12
    for row in rows:
        assert row["messages"][-1]["role"] == "user"
        assert normalised(asked(row["messages"])) not in seen
        assert check([*row["messages"], {"role": "assistant", "content": row["answer"]}]) is None


def test_questions_end_where_a_kind_has_no_more_to_ask():
    rows = list(corpus.questions(1, 25 * 40, set()))
    assert len({asked(row["messages"]) for row in rows}) == len(rows)


def test_training_and_validation_texts_share_nothing():
    train = corpus.texts(9, "train", 3000, 0.1)
    val = corpus.texts(9, "val", 400, 0.1, avoid=set(train))
    assert len(val) > 350 and not set(train) & set(val)
    assert len(set(train)) == len(train)


def test_the_python_share_is_met_and_is_source_text():
    texts = corpus.texts(1, "train", 2000, 0.2)
    python = [t for t in texts if "def " in t or "import " in t or "self." in t]
    share = sum(map(len, python)) / sum(map(len, texts))
    assert 0.1 < share < 0.3
    assert all(t.isascii() for t in texts)


def test_same_seed_same_world_other_seed_another():
    one, again, other = (corpus.conversations(seed, "train", 50, set()) for seed in (1, 1, 2))
    assert one == again != other
    assert [question(Random(4), k) for k in KINDS] == [question(Random(4), k) for k in KINDS]


def test_articles_joining_and_casual_speech():
    assert (a("owl"), a("fox"), a("elephant")) == ("an owl", "a fox", "an elephant")
    assert join("could you ", "spell cat.") == "Could you spell cat?"
    assert join("hey, ", "what is this?") == "Hey, what is this?"
    heard = {casual(Random(seed), "What is the capital of France?") for seed in range(40)}
    assert {"what's the capital of france", "What is the capital of France?", "what is the capital of france?"} <= heard
    assert made_up(Random(1)) == made_up(Random(1)) and made_up(Random(1)).isalpha()

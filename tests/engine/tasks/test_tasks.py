"""Every task of the table on small files of its dataset's schema: conversations that render, order, marking."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from engine.config import ConfigError
from engine.context import StageError
from engine.data.conversations import check
from engine.tasks import gsm8k, humaneval, mixture, table
from engine.tasks.identity import conversations
from engine.tasks.own_files import Identity
from engine.tasks.spelling_words import TEMPLATES
from engine.tasks.task import Problem, Task, TaskMixture, TaskSequence, render_choices

GSM = "She has <<3*4=12>>12 eggs and sells 2.\n12-2=<<12-2=10>>10\n#### 10"
HUB_ROWS = {
    "ARC-Easy": [{"id": str(i), "question": f"Q{i}?", "choices": {"text": ["w", "x", "y"], "label": ["A", "B", "C"]},
                  "answerKey": "C"} for i in range(7)],
    "MMLU": [{"question": f"Q{i}?", "subject": "s", "choices": list("wxyz"), "answer": i % 4} for i in range(9)],
    "GSM8K": [{"question": f"Q{i}?", "answer": GSM} for i in range(6)],
    "HumanEval": [{"task_id": "HumanEval/0", "prompt": "from typing import List\n\ndef f(x):\n    '''Double.'''\n",
                   "canonical_solution": "    return 2 * x\n", "test": "def check(f):\n    assert f(1) == 2\n",
                   "entry_point": "f"}],
    "SmolTalk": [{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Hi {i}"},
                               {"role": "assistant", "content": "Hello"}], "source": "s"} for i in range(8)],
    "Synthetic-Persona-Chat": [
        {"user 1 personas": "I sing.", "user 2 personas": "I ski.\nI cook.",
         "Best Generated Conversation":
         "User 1: Hi!\nUser 2: Hello,\nhow are you?\nUser 1: Fine.\nUser 2: Good.\nUser 1: Bye"},
        {"user 1 personas": "", "user 2 personas": "", "Best Generated Conversation": "User 2: wrong way round"}],
    "DailyDialog": [{"dialog": ["Hi ", " Hello", "Bye"], "act": [1, 1, 1], "emotion": [0, 0, 0]},
                    {"dialog": ["alone"], "act": [1], "emotion": [0]}],
    "LMSYS-Chat-1M": [
        {"conversation": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "redacted": False},
        {"conversation": [{"role": "user", "content": "NAME_1"}, {"role": "assistant", "content": "b"}],
         "redacted": True},
        {"conversation": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "redacted": False}],
    "Magpie": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
}
USABLE = {"Synthetic-Persona-Chat": 1, "DailyDialog": 1, "LMSYS-Chat-1M": 1}


@pytest.fixture
def stocked(small_hub, tmp_path):
    """A base directory whose Hub has every dataset of the table, and a word list."""
    rows = {**HUB_ROWS, "ARC-Challenge": HUB_ROWS["ARC-Easy"]}
    for spec in table.TASKS.values():
        for split in spec.splits.values():
            small_hub.add(spec.repo, spec.subset, split, rows[spec.name])
    (tmp_path / "words_alpha.txt").write_text("\n".join(["strawberry", "banana", "xylophone", "river", "moon"]))
    return tmp_path


class Numbers(Task):
    name = "numbers"

    def __init__(self, count, tag="", **view):
        super().__init__(**view)
        self.count, self.tag = count, tag

    def num_rows(self):
        return self.count

    def row(self, i):
        return Problem([{"role": "user", "content": f"{self.tag}{i}"}, {"role": "assistant", "content": "ok"}])


def contents(task):
    return [task[i][0]["content"] for i in range(len(task))]


@pytest.mark.parametrize(("view", "expected"), [
    ({}, "0123456789"), ({"start": 3}, "3456789"), ({"stop": 4}, "0123"), ({"start": 1, "stop": 8, "step": 3}, "147"),
    ({"stop": 7, "step": 3}, "036"), ({"stop": 99}, "0123456789"), ({"start": 12}, "")])
def test_a_view_counts_as_range_does(view, expected):
    task = Numbers(10, **view)
    assert "".join(contents(task)) == expected and len(task) == len(expected)
    assert [m[0]["content"] for m in task[::2]] == list(expected[::2])
    with pytest.raises(IndexError):
        task[len(expected)]


def test_a_mixture_is_the_shuffle_of_all_rows_by_seed_42():
    tasks = [Numbers(5, "a"), Numbers(3, "b"), Numbers(5, "a")]
    index = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]
    random.Random(42).shuffle(index)
    mixed = TaskMixture(tasks)
    assert contents(mixed) == ["ab"[t % 2] + str(i) for t, i in index]
    assert contents(TaskMixture(tasks, start=2, stop=9, step=3)) == contents(mixed)[2:9:3]


def test_a_sequence_is_one_task_after_the_other():
    assert contents(TaskSequence([Numbers(2, "a"), Numbers(0), Numbers(2, "b", start=1)])) == ["a0", "a1", "b1"]


@pytest.mark.parametrize("name", list(table.TASKS))
def test_every_task_gives_conversations_that_the_format_can_express(stocked, name, plain_tokenizer):
    from engine.tokenizer.chat_format import render_conversation

    spec = table.TASKS[name]
    split = next(iter(spec.splits or spec.size))
    task = spec.load(stocked, split, stop=40, log=lambda text: None)
    if name in HUB_ROWS:
        assert len(task) == USABLE.get(name, len(HUB_ROWS[name]))
    for conversation in task:
        plain = conversation[1:] if conversation[0]["role"] == "system" else conversation
        assert check(plain) is None
        ids, mask = render_conversation(plain_tokenizer, conversation)
        assert sum(mask) > 1 and len(ids) == len(mask)
    json.dumps(task[0])


def test_rows_come_in_the_order_of_numpys_permutation(stocked):
    task = table.find("arc-easy").load(stocked, "train")
    expected = [f"Q{i}?" for i in np.random.default_rng(42).permutation(7)]
    assert [text.split("\n")[0].removeprefix("Multiple Choice question: ") for text in contents(task)] == expected


def test_the_words_of_a_multiple_choice_question():
    assert render_choices("Why?", "AB", ["one", "two"]) == (
        "Multiple Choice question: Why?\n- one=A\n- two=B\n\nRespond only with the letter of the correct answer.")


def test_personas_and_dialogues_are_read_as_people_speak(stocked):
    [talk] = table.find("Synthetic-Persona-Chat").load(stocked)
    assert [m["content"] for m in talk] == ["Your persona: I ski. I cook.", "Hi!", "Hello,\nhow are you?", "Fine.",
                                            "Good."]
    [talk] = table.find("DailyDialog").load(stocked)
    assert [m["content"] for m in talk] == ["Hi", "Hello"]


def test_gsm8k_turns_working_into_calculator_calls(stocked):
    problem = table.find("GSM8K").load(stocked, "test").problem(0)
    assert [(p["type"], p["text"]) for p in problem.messages[1]["content"]] == [
        ("text", "She has "), ("python", "3*4"), ("python_output", "12"), ("text", "12 eggs and sells 2.\n12-2="),
        ("python", "12-2"), ("python_output", "10"), ("text", "10\n#### 10")]


@pytest.mark.parametrize(("answer", "right"), [
    ("#### 1010", False), ("so #### 10", True), ("10", False), ("#### 10 eggs", True), ("#### 9 #### 10", False),
    ("#### 1,0", True), ("#### -10", False), ("#### 10.0", False), ("", False)])
def test_gsm8k_marks_the_first_number_after_the_hashes(answer, right):
    assert gsm8k.is_right(gsm8k.problem_of(HUB_ROWS["GSM8K"][0]), answer) is right


def test_a_file_of_sums_in_gsm8k_schema(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text(json.dumps({"question": "1+1?", "answer": "#### 2"}) + "\n")
    task = gsm8k.Gsm8kFile(path)
    assert len(task) == 1 and task.mark(task.problem(0), "#### 2")
    for bad in ({"question": "x"}, {"question": "x", "answer": "2"}, []):
        path.write_text(json.dumps(bad) + "\n")
        with pytest.raises(StageError, match=r"sums.jsonl:1"):
            gsm8k.Gsm8kFile(path)


def test_code_is_taken_from_the_first_fence_and_gets_the_prompts_imports():
    problem = humaneval.problem_of(HUB_ROWS["HumanEval"][0])
    answer = "Sure:\n```python\ndef f(x):\n    return x\n```\nor\n```\nno\n```"
    assert humaneval.program_of(problem, answer) == "from typing import List\n\ndef f(x):\n    return x\n"
    assert humaneval.code_of("x = 1 ") == "x = 1"


def test_spelling_counts_are_true_and_test_problems_are_others(stocked):
    task, test = (table.find("SpellingBee").load(stocked, split) for split in ("train", "test"))
    assert len(task) == 80_000 and len(test) == 256
    for i in range(200):
        problem = task.problem(i)
        parts = problem.messages[1]["content"]
        call = next(p["text"] for p in parts if p["type"] == "python")
        said = next(p["text"] for p in parts if p["type"] == "python_output")
        assert str(eval(call)) == said == problem.facts["answer"]
        assert task.mark(problem, parts[-1]["text"]) and not task.mark(problem, "#### 77")
    assert task[5] == task[5] and [test[i] for i in range(20)] != [task[i] for i in range(20)]
    assert len(set(TEMPLATES)) == len(TEMPLATES) == 51
    [user, assistant] = table.find("SimpleSpelling").load(stocked)[0]
    word = user["content"].removeprefix("Spell the word: ")
    assert assistant["content"] == f"{word}:{','.join(word)}"


def test_identity_is_the_users_file_where_there_is_one(tmp_path):
    assert Identity(tmp_path).origin == "built in" and conversations() == conversations()
    texts = {message["content"] for talk in conversations() for message in talk}
    assert len(conversations()) == 400 and len(texts) > 200
    (tmp_path / "identity_conversations.jsonl").write_text(json.dumps(
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]) + "\n")
    assert Identity(tmp_path)[0][1]["content"] == "Ada."
    run_base = tmp_path / "runs" / "r-1" / "base"
    run_base.mkdir(parents=True)
    assert Identity(run_base)[0][1]["content"] == "Ada."


@pytest.mark.parametrize("name", list(mixture.NAMED))
def test_the_named_mixtures_build(stocked, name):
    train, val = (mixture.build(name, stocked, split, log=lambda text: None) for split in ("train", "val"))
    assert len(train) >= 8 + 27 + 24 and len(val) >= 8
    assert train[3] == mixture.build(name, stocked)[3]


def test_the_mixture_without_benchmarks_names_none():
    names = {part.partition("*")[0].partition(":")[0] for part in mixture.NAMED["no-benchmarks"].train.split("+")}
    assert not any(table.find(name).benchmark for name in names)


def test_a_written_mixture_counts_rows_and_times(stocked):
    (stocked / "mine.jsonl").write_text(json.dumps(
        [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "yes"}]) + "\n")
    built = mixture.build("GSM8K:2*3 + mine.jsonl + SimpleSpelling:4", stocked)
    assert len(built) == 6 + 1 + 4 and "mine" in contents(built)
    assert len(mixture.build("GSM8K*3+mine.jsonl", stocked, "val")) == 6 + 1


@pytest.mark.parametrize(("spec", "words"), [
    ("SmolTlk", "did you mean SmolTalk"), ("GSM8K:x", "no part of a mixture"), ("", "empty"), ("GSM8K*0", "no part")])
def test_a_misspelled_mixture_is_refused_before_anything_is_fetched(tmp_path, small_hub, spec, words):
    with pytest.raises(ConfigError, match=words):
        mixture.build(spec, tmp_path)
    assert not small_hub.requests


def test_changed_columns_are_named(small_hub, tmp_path):
    small_hub.add("openai/gsm8k", "main", "train", [{"question": "x", "reply": "y"}])
    with pytest.raises(StageError, match="has no column answer"):
        len(table.find("GSM8K").load(tmp_path))


def test_without_words_and_network_it_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMCONSOLE_WORDS_URL", "http://127.0.0.1:9/words")
    with pytest.raises(StageError) as error:
        table.find("SpellingBee").load(tmp_path)
    assert str(tmp_path / "words_alpha.txt") in error.value.next


def test_fetch_gets_everything_once_and_lists_it(stocked, small_hub, monkeypatch, capsys):
    from engine.tasks import fetch

    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(stocked))
    assert fetch.main([]) == 0 and "here: " not in capsys.readouterr().out
    assert fetch.main(["benchmarks", "nanochat-sft", "gsm8k"]) == 0
    asked = len(small_hub.requests)
    assert fetch.main(["benchmarks", "nanochat-sft", "gsm8k"]) == 0 and len(small_hub.requests) == asked
    assert fetch.main([]) == 0
    out = capsys.readouterr().out
    assert "here: train, test" in out and "made on the fly" in out and "needs a token" in out
    with pytest.raises(ConfigError, match="did you mean benchmarks"):
        fetch.main(["benchmark"])


def test_fetch_goes_on_after_a_failure_and_says_so(stocked, small_hub, monkeypatch, capsys):
    from engine.tasks import fetch

    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(stocked))
    del small_hub.files["cais/mmlu"]
    assert fetch.main(["benchmarks"]) == 1
    told = capsys.readouterr()
    assert "cais/mmlu all/test: not on the Hub" in told.err and "5 of 6 are in" in told.out

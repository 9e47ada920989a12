"""Benchmark tasks asked of models whose answers are known: letters by logits, numbers, programs, ChatCORE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from engine.config import ConfigError, from_argv
from engine.context import StageContext, StageError
from engine.evals import benchmarks, chat
from engine.evals.chat import Generation, Score, chatcore, lacking
from engine.events import EventWriter, parse_line
from engine.inference.generate import Completion, Engine
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.settings.evaluation import ChatEval
from engine.stages import chat_benchmarks, chat_eval
from engine.tasks import humaneval
from engine.tasks.gsm8k import Gsm8kFile
from engine.tasks.hub_parquet import HubSplit
from engine.tasks.task import Problem, Task
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary
from engine.train.checkpoint import save_checkpoint

ROWS = [{"task_id": "x", "prompt": "def f(x):\n    '''Double.'''\n", "canonical_solution": "    return 2 * x\n",
         "test": "def check(f):\n    assert f(2) == 4\n", "entry_point": "f"}]


@pytest.fixture(scope="module")
def letters_tokenizer():
    specials = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))


def guessing_model(context=64):
    """Random, so that its letters are all over the place."""
    torch.manual_seed(3)
    model = GPT(GPTConfig(context, 265, 2, 2, 2, 32)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


class Choices(Task):
    name, kind = "choices", "categorical"

    def num_rows(self):
        return 37

    def row(self, i):
        letters = ("A", "B", "C", "D", "E")[: 3 + i % 3]
        question = f"Which? {'x' * (i * 5 % 160)} {i}"
        return Problem([{"role": "user", "content": question}, {"role": "assistant", "content": letters[i % 3]}],
                       letters)


class Saying:
    """An engine that answers prompt p with `answers(p, n)`, its n-th sample."""

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers, self.asked = tokenizer, answers, []

    def generate_batch(self, prompts, **settings):
        self.asked.append(settings)
        seen = {}
        out = []
        for prompt in prompts:
            text = self.tokenizer.decode(list(prompt))
            seen[text] = seen.get(text, -1) + 1
            out.append(Completion(self.tokenizer.encode(self.answers(text, seen[text])), [], "stop"))
        return out


def test_letters_are_chosen_as_one_prompt_alone_would_choose(letters_tokenizer):
    task, tok = Choices(), letters_tokenizer
    engine = Engine(guessing_model(context=512), tok)
    expected = []
    for i in range(len(task)):
        problem = task.problem(i)
        with torch.no_grad():
            logits = engine.model(torch.tensor([render_for_completion(tok, problem.messages)]))[0, -1]
        best = max(problem.letters, key=lambda letter: logits[tok.encode(letter)[0]].item())
        expected.append(best == problem.messages[-1]["content"])
    assert 0 < sum(expected) < 37
    problems = [task.problem(i) for i in range(37)]
    for batch_size in (1, 5, 64):
        assert chat.choose_letters(problems, engine, tok, batch_size) == expected
    score = chat.ask_task(task, engine, tok, Generation(), max_problems=20)
    assert (score.right, score.total) == (sum(expected[:20]), 20)


def test_prompts_beyond_the_context_are_still_asked(letters_tokenizer):
    engine = Engine(guessing_model(context=32), letters_tokenizer)
    score = chat.ask_task(Choices(), engine, letters_tokenizer, Generation())
    assert score.total == 37 and engine.model.cos.shape[0] == 32


def test_a_letter_of_two_tokens_is_refused(letters_tokenizer):
    problem = Problem([{"role": "user", "content": "?"}, {"role": "assistant", "content": "é"}], ("é", "b"))
    with pytest.raises(ValueError, match="not a single token"):
        chat.choose_letters([problem], Engine(guessing_model(), letters_tokenizer), letters_tokenizer, 1)


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}+1?", "answer": f"#### {i + 1}"}) + "\n" for i in range(10)))
    return Gsm8kFile(path)


def test_one_right_answer_of_several_is_enough(sums, letters_tokenizer):
    def answers(prompt, sample):  # right for even sums only, and only at the third attempt
        number = int(prompt.split("<|user_start|>")[1].split("+")[0])
        return f"#### {number + 1}" if number % 2 == 0 and sample == 2 else "#### 77"

    engine = Saying(letters_tokenizer, answers)
    for samples, right in ((1, 0), (2, 0), (3, 5), (4, 5)):
        settings = Generation(num_samples=samples, max_new_tokens=9, temperature=0.7, top_k=3)
        assert chat.ask_task(sums, engine, letters_tokenizer, settings) == Score("sums", right, 10)
    assert engine.asked[-1]["max_tokens"] == 9 and engine.asked[-1]["top_k"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_programs_are_judged_in_the_sandbox(letters_tokenizer, tmp_path):
    from engine.sandbox.sandbox import Sandbox

    task = humaneval.HumanEval("HumanEval", HubSplit("a/b", "c", "test"), tmp_path)
    task.__dict__["_order"], task.row = [0], lambda i: humaneval.problem_of(ROWS[0])
    with Sandbox() as box:
        for answer, right in (("```python\ndef f(x):\n    return x + x\n```", 1), ("def f(x): return x", 0),
                              ("import os\nos._exit(0)", 0), ("I do not know.", 0)):
            engine = Saying(letters_tokenizer, lambda prompt, sample, answer=answer: answer)
            assert chat.ask_task(task, engine, letters_tokenizer, Generation(), sandbox=box).right == right
    with pytest.raises(ValueError, match="sandbox only"):
        chat.marker_of(task, None)


def test_chatcore_is_the_mean_with_guessing_at_zero():
    accuracy = {"ARC-Easy": 0.4, "ARC-Challenge": 0.25, "MMLU": 0.325, "GSM8K": 0.05, "HumanEval": 0.1,
                "SpellingBee": 1.0}
    scores = {name: Score(name, round(1000 * value), 1000) for name, value in accuracy.items()}
    expected = (0.15 / 0.75 + 0.0 + 0.075 / 0.75 + 0.05 + 0.1 + 1.0) / 6
    assert chatcore(scores) == pytest.approx(expected) and lacking(scores) == []
    scores["HumanEval"] = Score("HumanEval", not_run="no isolation")
    assert chatcore(scores) is None and lacking(scores) == ["HumanEval (no isolation)"]
    assert chatcore(scores, chat.CATEGORICAL) == pytest.approx((0.2 + 0 + 0.1) / 3)
    assert lacking({}) == list(chat.CHATCORE)


@pytest.fixture
def stocked_base(tmp_path, letters_tokenizer, monkeypatch):
    """A base directory with a small model and the six benchmark tasks in its cache, and no network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from engine.tasks.table import TASKS

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = tmp_path / "b"
    choice = {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    rows = {"ARC-Easy": [choice] * 5, "ARC-Challenge": [choice] * 4,
            "MMLU": [{"question": "Which?", "choices": list("wxyz"), "answer": 2}] * 3,
            "GSM8K": [{"question": "4+4?", "answer": "#### 8"}] * 6, "HumanEval": ROWS}
    for name, found in rows.items():
        spec = TASKS[name]
        folder = HubSplit(spec.repo, spec.subset, "test").folder(base)
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(found), folder / "0000.parquet")
        size = (folder / "0000.parquet").stat().st_size
        (folder / "manifest.json").write_text(json.dumps({"files": {"0000.parquet": {"bytes": size}}}))
    (base / "words_alpha.txt").write_text("banana\ncherry\n")
    letters_tokenizer.save(base / "tokenizer")
    model = guessing_model(context=96)
    save_checkpoint(base / "chatsft_checkpoints" / "d2", 5, source="sft", model=model.state_dict(),
                    meta={"step": 5, "model_config": model.config.to_dict()})
    return base


def evaluated(base, *flags):
    context = StageContext(base, EventWriter(base / "events.jsonl"), "chat_eval")
    config = from_argv(ChatEval, ["-m", "4", "-b=8", "--device-type=cpu", "-d", "float32", *flags])
    chat_eval.run(config, context)
    events = [parse_line(line) for line in (base / "events.jsonl").read_bytes().splitlines()]
    return [e for e in events if e.kind == "eval"][-1].data, events


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_all_six_tasks_offline_from_the_cache(stocked_base, capsys):
    found, _ = evaluated(stocked_base, "-x", "4")
    assert {f"chat/{name}" for name in chat.CHATCORE} < set(found)
    part = json.loads((stocked_base / "report" / "chat-evaluation-sft.json").read_text())["data"]
    expected = sum((found[f"chat/{n}"] - b) / (1 - b) for n, b in
                   zip(chat.CHATCORE, (0.25, 0.25, 0.25, 0, 0, 0), strict=True)) / 6
    assert found["chatcore_metric"] == pytest.approx(expected) == part["ChatCORE metric"]
    assert "ChatCORE metric: " in capsys.readouterr().out


def test_without_a_sandbox_humaneval_is_not_run_and_says_why(stocked_base, monkeypatch, capsys):
    from engine.sandbox.sandbox import SandboxUnavailable

    def none():
        raise SandboxUnavailable("it does not hold")

    monkeypatch.setattr(benchmarks, "Sandbox", none)
    found, events = evaluated(stocked_base, "-a", "GSM8K|HumanEval")
    assert "chat/GSM8K" in found and "chat/HumanEval" not in found and "chatcore_metric" not in found
    part = json.loads((stocked_base / "report" / "chat-evaluation-sft.json").read_text())["data"]
    assert part["HumanEval"] == "not run: no isolation: it does not hold"
    assert "ChatCORE metric: not computed, it lacks ARC-Easy" in capsys.readouterr().out
    assert [e.data["code"] for e in events if e.kind == "alert"] == ["not-run"]


def test_a_missing_dataset_stops_before_the_first_question(stocked_base):
    import shutil

    shutil.rmtree(stocked_base / "task_data" / "cais--mmlu")
    with pytest.raises(StageError, match="cais/mmlu all/test is not on this machine"):
        evaluated(stocked_base)
    assert not (stocked_base / "events.jsonl").read_bytes()


@pytest.mark.parametrize(("words", "names"), [
    ("all", None), ("benchmarks", list(chat.CHATCORE)), ("gsm8k|mmlu", ["GSM8K", "MMLU"]), ("country", None)])
def test_names_of_tasks(words, names):
    assert chat_benchmarks.named(words) == names


def test_a_misspelled_task_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean MMLU"):
        chat_benchmarks.named("GSM8K|MMLUU")


def test_questions_of_the_dataset_stage_come_first(stocked_base):
    """Where questions.jsonl is, `all` asks it and no benchmark."""
    path = Path(stocked_base) / "conversations" / "questions.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"kind": "add", "messages": [{"role": "user", "content": "1+1?"}], "answer": "2",
                                "accept": {"rule": "number", "value": "2"}}) + "\n")
    found, _ = evaluated(stocked_base)
    assert set(found) == {"chat/all", "chat/add"}
    found, _ = evaluated(stocked_base, "-a", "GSM8K")
    assert "chat/GSM8K" in found

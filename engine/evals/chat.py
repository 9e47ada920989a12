"""How well a chat model does on the benchmark tasks, and ChatCORE, which sums them up.

Multiple choice is asked once and answered by the letter whose logit is largest; the rest is generated, with the
calculator at hand, and marked. Program code is judged in the sandbox or, where there is none, not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.dist import ALONE, World
from engine.evals.core import reach
from engine.inference.generate import Engine
from engine.model.places import logits_at
from engine.sandbox.sandbox import Sandbox
from engine.tasks.humaneval import HumanEval, program_of
from engine.tasks.table import CHATCORE, TASKS
from engine.tasks.task import Problem, Task
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion

CATEGORICAL = ("ARC-Easy", "ARC-Challenge", "MMLU")

Progress = Callable[[int, int], object]  # problems done, problems in all (of this rank)


@dataclass(frozen=True)
class Generation:
    """How answers are made. A problem counts as solved when one of `num_samples` answers is right."""

    num_samples: int = 1
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 50
    batch_size: int = 8
    seed: int = 42


@dataclass(frozen=True)
class Score:
    """What a task gave: right of total, or why it was not run."""

    task: str
    right: int = 0
    total: int = 0
    not_run: str = ""

    @property
    def accuracy(self) -> float | None:
        return None if self.not_run or not self.total else self.right / self.total


class Marker(Protocol):
    """Whether an answer to a problem is right."""

    def __call__(self, problem: Problem, answer: str) -> bool: ...


def ask_task(task: Task, engine: Engine, tokenizer: Tokenizer, settings: Generation, *, max_problems: int | None = None,
             sandbox: Sandbox | None = None, world: World = ALONE, progress: Progress | None = None,
             should_stop: Callable[[], bool] = bool) -> Score:
    """Ask a task of the table, this rank its share of the problems; every rank gets the whole score."""
    total = len(task) if max_problems is None else min(len(task), max_problems)
    mine = [task.problem(i) for i in range(world.rank, total, world.size)]
    if task.kind == "categorical":
        marks = choose_letters(mine, engine, tokenizer, settings.batch_size, progress, should_stop)
    else:
        marks = solve(mine, marker_of(task, sandbox), engine, tokenizer, settings, progress, should_stop)
    counts = world.gather((sum(marks), len(mine)))
    return Score(task.name, sum(right for right, _ in counts), sum(asked for _, asked in counts))


def marker_of(task: Task, sandbox: Sandbox | None) -> Marker:
    """The task's own marking; for programs, the sandbox's verdict."""
    if not isinstance(task, HumanEval):
        return task.mark
    if sandbox is None:
        raise ValueError("program code is judged in a sandbox only")
    return lambda problem, answer: judge_program(sandbox, problem, answer)


def judge_program(sandbox: Sandbox, problem: Problem, answer: str) -> bool:
    """Whether the code in an answer passes the problem's tests."""
    facts = problem.facts
    return sandbox.judge(program_of(problem, answer), facts["entry_point"], facts["test"],
                         prelude=facts["prompt"]).passed


@torch.inference_mode()
def choose_letters(problems: Sequence[Problem], engine: Engine, tokenizer: Tokenizer, batch_size: int,
                   progress: Progress | None = None, should_stop: Callable[[], bool] = bool) -> list[bool]:
    """Whether the letter with the largest logit behind each prompt is the right one. No text is generated."""
    marks: list[bool] = []
    letters = _letter_ids(problems, tokenizer)
    bos, device = tokenizer.get_bos_token_id(), engine.model.device
    with reach(engine.model) as model:
        for batch in _in_batches(problems, batch_size):
            prompts = [render_for_completion(tokenizer, p.messages)[-model.cos.shape[0]:] for p in batch]
            width = max(map(len, prompts))
            idx = torch.tensor([ids + [bos] * (width - len(ids)) for ids in prompts], device=device)
            last = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
            logits = logits_at(model, idx, (torch.arange(len(batch), device=device), last)).cpu()
            for row, problem in zip(logits, batch, strict=True):
                choice = row[[letters[letter] for letter in problem.letters]].argmax().item()
                marks.append(problem.letters[int(choice)] == problem.messages[-1]["content"])
            if progress:
                progress(len(marks), len(problems))
            if should_stop():
                break
    return marks


def _letter_ids(problems: Sequence[Problem], tokenizer: Tokenizer) -> dict[str, int]:
    """The token of each letter. Raises ValueError where the tokenizer has none for it."""
    found = {}
    for letter in dict.fromkeys(letter for p in problems for letter in p.letters):
        ids = tokenizer.encode(letter)
        if len(ids) != 1:
            raise ValueError(f"the answer {letter!r} is not a single token of this tokenizer")
        found[letter] = ids[0]
    return found


def solve(problems: Sequence[Problem], right: Marker, engine: Engine, tokenizer: Tokenizer, settings: Generation,
          progress: Progress | None = None, should_stop: Callable[[], bool] = bool) -> list[bool]:
    """Whether one of the generated answers to each problem is right; problems go side by side."""
    n, marks, done = settings.num_samples, [False] * len(problems), 0
    for group in _in_batches(range(len(problems)), max(1, settings.batch_size * _GROUPS // n)):
        prompts = [render_for_completion(tokenizer, problems[i].messages) for i in group for _ in range(n)]
        completions = engine.generate_batch(
            prompts, max_tokens=settings.max_new_tokens, temperature=settings.temperature, top_k=settings.top_k,
            seed=settings.seed + group[0], batch_size=settings.batch_size, should_stop=should_stop)
        if should_stop():
            break
        texts = [tokenizer.decode(completion.tokens) for completion in completions]
        for place, i in enumerate(group):
            marks[i] = any(right(problems[i], text) for text in texts[place * n : (place + 1) * n])
        done += len(group)
        if progress:
            progress(done, len(problems))
    return marks


_GROUPS = 8  # batches' worth of problems looked at together: of so many, several have prompts of one length


def _in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def chatcore(scores: Mapping[str, Score], tasks: Sequence[str] = CHATCORE) -> float | None:
    """Mean of the tasks' accuracies with guessing at 0; None unless every one of `tasks` was run."""
    found = [(scores[name].accuracy, TASKS[name].baseline) for name in tasks if name in scores]
    if len(found) < len(tasks):
        return None
    centered = [(accuracy - guess) / (1 - guess) for accuracy, guess in found
                if accuracy is not None and guess is not None]
    return sum(centered) / len(centered) if len(centered) == len(tasks) else None


def lacking(scores: Mapping[str, Score]) -> list[str]:
    """The tasks that ChatCORE needs and did not get, each with the reason where there is one."""
    return [f"{name} ({scores[name].not_run})" if name in scores else name for name in CHATCORE
            if name not in scores or scores[name].accuracy is None]

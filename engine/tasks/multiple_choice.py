"""ARC-Easy, ARC-Challenge and MMLU: one question, some choices, one letter. Asked by comparing the letters' logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.tasks.rows import HubTask
from engine.tasks.task import Problem, render_choices

MMLU_LETTERS = ("A", "B", "C", "D")


class MultipleChoice(HubTask):
    """What the three share: the answer is the letter and nothing else."""

    kind = "categorical"

    def mark(self, problem: Problem, answer: str) -> bool:
        return answer == problem.messages[-1]["content"]


class Arc(MultipleChoice):
    """Science questions for children; 3 to 5 choices, lettered A to E or 1 to 4."""

    columns = ("question", "choices", "answerKey")

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        letters = tuple(str(letter) for letter in row["choices"]["label"])
        return _problem(row["question"], letters, row["choices"]["text"], str(row["answerKey"]))


class Mmlu(MultipleChoice):
    """57 subjects of school and university, four choices."""

    columns = ("question", "choices", "answer")

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        return _problem(row["question"], MMLU_LETTERS, row["choices"], MMLU_LETTERS[int(row["answer"])])


def _problem(question: str, letters: tuple[str, ...], choices: Sequence[str], answer: str) -> Problem:
    messages = [{"role": "user", "content": render_choices(question, letters, choices)},
                {"role": "assistant", "content": answer}]
    return Problem(messages, letters)

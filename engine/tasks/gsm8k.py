"""GSM8K: school sums in words. The working carries calculator calls, the answer stands after ####.

`<<48/2=24>>` in the dataset's working becomes a call of the calculator and its result. A file of our own may carry rows
of the same two columns, question and answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.context import StageError
from engine.data.conversations import json_lines
from engine.tasks.rows import HubTask
from engine.tasks.task import Message, Problem, Task

_ANSWER = re.compile(r"#### (-?[0-9.,]+)")
_CALL = re.compile(r"(<<[^>]+>>)")


def final_answer(text: str) -> str | None:
    """The first number after `#### `, without commas; None when there is none."""
    found = _ANSWER.search(text)
    return found.group(1).strip().replace(",", "") if found else None


def parts_of(answer: str) -> list[Message]:
    """The dataset's answer as parts: text, calculator calls, and what they return."""
    parts = []
    for piece in _CALL.split(answer):
        if piece.startswith("<<") and piece.endswith(">>"):
            inner = piece[2:-2]
            expression, result = inner.rsplit("=", 1) if "=" in inner else (inner, "")
            parts += [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]
        else:
            parts.append({"type": "text", "text": piece})
    return parts


def problem_of(row: Mapping[str, Any]) -> Problem:
    """A row with question and answer as a conversation."""
    messages = [{"role": "user", "content": row["question"]},
                {"role": "assistant", "content": parts_of(row["answer"])}]
    return Problem(messages, facts={"answer": final_answer(row["answer"])})


def is_right(problem: Problem, answer: str) -> bool:
    """Whether the number after #### is that of the dataset, character for character."""
    expected = problem.facts["answer"]
    return expected is not None and final_answer(answer) == expected


class Gsm8k(HubTask):
    """The dataset on the Hub."""

    kind = "generative"
    columns = ("question", "answer")

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        return problem_of(row)

    def mark(self, problem: Problem, answer: str) -> bool:
        return is_right(problem, answer)


class Gsm8kFile(Task):
    """A JSONL file with question and answer per line, marked like GSM8K; in the file's order."""

    kind = "generative"

    def __init__(self, path: Path, *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.name, self.rows = path.stem, []
        for number, row in json_lines(path):
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("question", "answer")):
                raise StageError(f"{path}:{number}: a problem is an object with the texts question and answer",
                                 "correct the line or remove it", "data")
            if final_answer(row["answer"]) is None:
                raise StageError(f"{path}:{number}: the answer has no final line '#### number'",
                                 "correct the line or remove it", "data")
            self.rows.append(row)
        if not self.rows:
            raise StageError(f"{path} holds no problems", "write one JSON object with question and answer per line",
                             "data")

    def num_rows(self) -> int:
        return len(self.rows)

    def row(self, i: int) -> Problem:
        return problem_of(self.rows[i])

    def mark(self, problem: Problem, answer: str) -> bool:
        return is_right(problem, answer)

"""HumanEval: complete a Python function so that its tests pass. What a model writes runs in the sandbox only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.tasks.rows import HubTask
from engine.tasks.task import Problem

_FENCED = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)


class HumanEval(HubTask):
    """164 functions with a docstring. Marking needs a sandbox, so it is `engine.sandbox`'s, by `program_of`."""

    kind = "generative"
    columns = ("prompt", "canonical_solution", "test", "entry_point")

    def problem_of(self, row: Mapping[str, Any]) -> Problem:
        return problem_of(row)


def problem_of(row: Mapping[str, Any]) -> Problem:
    """A row of the dataset, or of a file in its schema, as a conversation."""
    solution = f"{row['prompt']}\n{row['canonical_solution']}"
    messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": solution}]
    return Problem(messages, facts={"prompt": row["prompt"], "entry_point": row["entry_point"], "test": row["test"]})


def code_of(answer: str) -> str:
    """The first fenced code block of an answer, or all of it."""
    found = _FENCED.search(answer)
    return (found.group(1) if found else answer).strip()


def imports_of(prompt: str) -> str:
    """The import lines at the top of a prompt, which an answer may leave out."""
    lines = []
    for line in prompt.split("\n"):
        stripped = line.strip()
        if stripped.startswith(("import ", "from ")):
            lines.append(stripped)
        elif stripped and not stripped.startswith("#"):
            break
    return "\n".join(lines)


def program_of(problem: Problem, answer: str) -> str:
    """The module that an answer stands for: the prompt's imports, then the code."""
    return f"{imports_of(problem.facts['prompt'])}\n\n{code_of(answer)}\n"

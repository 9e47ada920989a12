"""What a set of problems or conversations is to everyone who trains on it or asks it, and how sets are combined.

A task is a view (start, stop, step) of rows; a row becomes a conversation only when it is asked for. Where rows come
from is the business of the other files of this folder.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

Message = dict[str, Any]
Conversation = list[Message]
Kind = Literal["categorical", "generative", "training"]

MIXTURE_SEED = 42


@dataclass(frozen=True)
class Problem:
    """One row. `messages` ends with the right answer; `letters` are the choices of a categorical problem; `facts` is
    what marking needs beyond the messages."""

    messages: Conversation
    letters: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Task(Sequence[Conversation]):
    """Rows start, start + step, ... below stop. Subclasses say how many rows there are and what row i is."""

    name: str = ""
    kind: Kind = "training"

    def __init__(self, *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        if start < 0 or step < 1 or (stop is not None and stop < start):
            raise ValueError(f"a view needs 0 <= start <= stop and step >= 1, not {start}, {stop}, {step}")
        self.start, self.stop, self.step = start, stop, step

    def num_rows(self) -> int:
        """Rows of the whole set, whatever the view."""
        raise NotImplementedError

    def row(self, i: int) -> Problem:
        """Row i of the whole set, 0 <= i < num_rows()."""
        raise NotImplementedError

    def mark(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` is right. Only for sets that can be asked."""
        raise TypeError(f"{self.name} is for training, not for asking")

    def __len__(self) -> int:
        stop = self.num_rows() if self.stop is None else min(self.stop, self.num_rows())
        return max(0, -(-(stop - self.start) // self.step))

    def problem(self, i: int) -> Problem:
        """The i-th problem of the view. Raises IndexError."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, not a row {i}")
        return self.row(self.start + i * self.step)

    @overload
    def __getitem__(self, i: int) -> Conversation: ...

    @overload
    def __getitem__(self, i: slice) -> list[Conversation]: ...

    def __getitem__(self, i: int | slice) -> Conversation | list[Conversation]:
        if isinstance(i, slice):
            return [self.problem(n).messages for n in range(*i.indices(len(self)))]
        return self.problem(i + len(self) if i < 0 else i).messages


class TaskMixture(Task):
    """All rows of several tasks in one fixed shuffled order. A task given twice counts twice."""

    name = "mixture"

    def __init__(self, tasks: Sequence[Task], *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.tasks = list(tasks)
        self._index = [(t, i) for t, task in enumerate(self.tasks) for i in range(len(task))]
        random.Random(MIXTURE_SEED).shuffle(self._index)

    def num_rows(self) -> int:
        return len(self._index)

    def row(self, i: int) -> Problem:
        task, place = self._index[i]
        return self.tasks[task].problem(place)


class TaskSequence(Task):
    """All rows of several tasks, one task after the other: a curriculum."""

    name = "sequence"

    def __init__(self, tasks: Sequence[Task], *, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(start=start, stop=stop, step=step)
        self.tasks = list(tasks)
        self._lengths = [len(task) for task in self.tasks]

    def num_rows(self) -> int:
        return sum(self._lengths)

    def row(self, i: int) -> Problem:
        for task, length in zip(self.tasks, self._lengths, strict=True):
            if i < length:
                return task.problem(i)
            i -= length
        raise IndexError(i)


def render_choices(question: str, letters: Sequence[str], choices: Sequence[str]) -> str:
    """A multiple choice question as nanochat words it; no space before the letter, so that it is the same token as in
    the answer."""
    lines = "".join(f"- {choice}={letter}\n" for letter, choice in zip(letters, choices, strict=True))
    return f"Multiple Choice question: {question}\n{lines}\nRespond only with the letter of the correct answer."

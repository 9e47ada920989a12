"""The one table of tasks: by which name, from which dataset, as what. Everything else asks here.

A name may carry a size and a count: `SmolTalk:10000` is its first 10,000 rows, `identity*2` counts twice, and
`json:FILE` is a file of conversations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import ConfigError, nearest
from engine.data.download import Log
from engine.tasks.chats import DailyDialog, LmsysChat, Magpie, SmolTalk, SyntheticPersonaChat
from engine.tasks.gsm8k import Gsm8k
from engine.tasks.hub_parquet import HubSplit
from engine.tasks.humaneval import HumanEval
from engine.tasks.multiple_choice import Arc, Mmlu
from engine.tasks.own_files import CustomJson, Identity
from engine.tasks.rows import HubTask
from engine.tasks.spelling import SimpleSpelling, SpellingBee
from engine.tasks.task import Task


@dataclass(frozen=True)
class TaskSpec:
    """One row. A Hub set names its class and its splits; another one its maker. `baseline` is what guessing scores;
    `in_chatcore` says whether the ChatCORE metric counts it; `size` is the default of sets made on the fly."""

    name: str
    summary: str
    hub: type[HubTask] | None = None
    repo: str = ""
    subset: str = ""
    splits: dict[str, str] = field(default_factory=dict)  # ours -> the dataset's
    make: Callable[[Path, str, int], Task] | None = None
    size: dict[str, int] = field(default_factory=dict)
    baseline: float | None = None
    benchmark: bool = False
    gate: str = ""

    def load(self, base: Path, split: str = "train", *, stop: int | None = None, log: Log = print) -> Task:
        """The task over `split`, at most `stop` rows of it. Raises ConfigError when there is no such split."""
        known = self.splits or self.size
        if split not in known:
            raise ConfigError(f"{self.name} has no split {split!r}{nearest(split, list(known))}")
        if self.hub is not None:
            place = HubSplit(self.repo, self.subset, self.splits[split], self.gate)
            return self.hub(self.name, place, base, stop=stop, log=log)
        assert self.make is not None
        size = self.size[split]
        return self.make(base, split, stop or size) if self.name in _MADE else _cut(self.make(base, split, size), stop)


def _cut(task: Task, stop: int | None) -> Task:
    task.stop = stop
    return task


_MADE = ("SpellingBee", "SimpleSpelling")  # endless: the size asked for is the size made
_TRAIN_TEST = {"train": "train", "test": "test"}

_TABLE = (
    TaskSpec("ARC-Easy", "science questions, easy set", Arc, "allenai/ai2_arc", "ARC-Easy",
             {"train": "train", "validation": "validation", "test": "test"}, baseline=0.25, benchmark=True),
    TaskSpec("ARC-Challenge", "science questions, challenge set", Arc, "allenai/ai2_arc", "ARC-Challenge",
             {"train": "train", "validation": "validation", "test": "test"}, baseline=0.25, benchmark=True),
    TaskSpec("MMLU", "57 subjects, four choices", Mmlu, "cais/mmlu", "all",
             {"train": "auxiliary_train", "validation": "validation", "test": "test"}, baseline=0.25, benchmark=True),
    TaskSpec("GSM8K", "school sums in words, with the calculator", Gsm8k, "openai/gsm8k", "main", _TRAIN_TEST,
             baseline=0.0, benchmark=True),
    TaskSpec("HumanEval", "complete a Python function; needs the sandbox", HumanEval, "openai/openai_humaneval",
             "openai_humaneval", {"test": "test"}, baseline=0.0, benchmark=True),
    TaskSpec("SpellingBee", "count a letter in a word",
             make=lambda base, split, n: SpellingBee(base, size=n, split=split),
             size={"train": 80_000, "test": 256}, baseline=0.0, benchmark=True),
    TaskSpec("SimpleSpelling", "spell a word", make=lambda base, split, n: SimpleSpelling(base, size=n, split=split),
             size={"train": 200_000, "test": 256}),
    TaskSpec("SmolTalk", "general conversations", SmolTalk, "HuggingFaceTB/smol-smoltalk", "default", _TRAIN_TEST),
    TaskSpec("identity", "who the model is", make=lambda base, split, n: Identity(base), size={"train": 0}),
    TaskSpec("Synthetic-Persona-Chat", "two made-up persons get to know each other", SyntheticPersonaChat,
             "google/Synthetic-Persona-Chat", "default",
             {"train": "train", "validation": "validation", "test": "test"}),
    TaskSpec("DailyDialog", "everyday talk", DailyDialog, "li2017dailydialog/daily_dialog", "default",
             {"train": "train", "validation": "validation", "test": "test"}),
    TaskSpec("LMSYS-Chat-1M", "what people asked models on the web", LmsysChat, "lmsys/lmsys-chat-1m", "default",
             {"train": "train"}, gate="its owners ask you to accept the LMSYS-Chat-1M Dataset License Agreement"),
    TaskSpec("Magpie", "instructions that a model made up", Magpie, "Magpie-Align/Magpie-Pro-300K-Filtered", "default",
             {"train": "train"}),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _TABLE}
CHATCORE = ("ARC-Easy", "ARC-Challenge", "MMLU", "GSM8K", "HumanEval", "SpellingBee")


def find(name: str) -> TaskSpec:
    """The row called `name`, in any case. Raises ConfigError with the nearest name."""
    by_lower = {known.lower(): spec for known, spec in TASKS.items()}
    if name.lower() not in by_lower:
        raise ConfigError(f"unknown task {name!r}{nearest(name, list(TASKS))}")
    return by_lower[name.lower()]


def load(item: str, base: Path, split: str = "train", *, log: Log = print) -> list[Task]:
    """The tasks that one item of a mixture stands for: NAME, NAME:ROWS, NAME*TIMES, NAME:ROWS*TIMES, json:FILE."""
    name, _, times = item.partition("*")
    kind, _, rows = name.partition(":")
    count = _number(times or "1", item)
    if kind == "json":
        path = Path(rows).expanduser()
        return [CustomJson(path if path.is_absolute() else base / path)] * count
    stop = _number(rows, item) if rows else None
    return [find(kind.strip()).load(base, split, stop=stop, log=log)] * count


def _number(text: str, item: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"{item!r} is no part of a mixture: write NAME, NAME:ROWS, NAME*TIMES or json:FILE")
    return int(text)

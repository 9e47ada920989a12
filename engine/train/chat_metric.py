"""Benchmark accuracy while SFT trains: the same questions that chat_eval asks, fewer of them, at the loop's cadence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.context import Stopped
from engine.evals.benchmarks import Limits, ask_all, values_of
from engine.evals.chat import Generation, Score
from engine.inference.generate import Engine
from engine.settings.training import ChatSft
from engine.tasks.table import CHATCORE, find
from engine.tasks.task import Task

if TYPE_CHECKING:
    from engine.train.workbench import Workbench

PROBED = ("MMLU", "ARC-Easy")  # what nanochat's first SFT watched

Measure = tuple[int, Callable[[int], object]]


@dataclass(frozen=True)
class Probe:
    """Which tasks are asked, every how many steps, and how much of them."""

    every: int
    tasks: tuple[str, ...]
    limits: Limits


def probes(config: ChatSft) -> list[Probe]:
    """What the settings ask for."""
    found = []
    if config.eval_metrics_every:
        most = config.eval_metrics_max_problems
        found.append(Probe(config.eval_metrics_every, PROBED, Limits(most, most)))
    if config.chatcore_every:
        limits = Limits(config.chatcore_max_cat, config.chatcore_max_sample)
        found.append(Probe(config.chatcore_every, CHATCORE, limits))
    return found


def chat_measures(config: ChatSft, bench: Workbench) -> list[Measure]:
    """One measure per probe, for the loop. Loads the tasks now, so that a missing one is said before the first step.

    Raises StageError when a dataset is not here and cannot be fetched.
    """
    asked = probes(config)
    names = dict.fromkeys(name for probe in asked for name in probe.tasks)
    tasks = {name: find(name).load(bench.context.base_dir, "test", log=bench.context.log) for name in names}
    for task in tasks.values():
        len(task)  # reads it
    return [(probe.every, _measure(probe, {name: tasks[name] for name in probe.tasks}, bench)) for probe in asked]


def _measure(probe: Probe, tasks: dict[str, Task], bench: Workbench) -> Callable[[int], None]:
    generation = Generation(batch_size=2 * (bench.config.device_batch_size or 8))

    def measure(step: int) -> None:
        engine = Engine(bench.model, bench.tokenizer)
        try:
            scores = ask_all(tasks, engine, bench.tokenizer, generation, probe.limits, bench.context, bench.world)
        except Stopped:  # the loop saves before it ends
            return
        bench.context.events.evaluation(step, **values_of(scores))
        bench.context.log(f"Step {step:05d} | {_line(scores, probe.tasks)}")

    return measure


def _line(scores: dict[str, Score], tasks: Sequence[str]) -> str:
    """In nanochat's words: ChatCORE, or the tasks' accuracies."""
    values = values_of(scores)
    if tasks == PROBED:
        names = {"chat/MMLU": "mmlu_acc", "chat/ARC-Easy": "arc_easy_acc"}
        return ", ".join(f"{word}: {values[name]:.6f}" for name, word in names.items() if name in values)
    words = {"chatcore_metric": "ChatCORE", "chatcore_cat": "ChatCORE_cat"}
    told = [f"{word}: {values[name]:.4f}" for name, word in words.items() if name in values]
    return " | ".join(told) or "ChatCORE: not computed"

"""Several benchmark tasks asked of one model, one after the other, on every rank together.

A task that cannot be run (no sandbox) is named with that reason, and is no 0 %. Where the tasks come from, and who is
told, is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.context import StageContext, Stopped
from engine.dist import World
from engine.evals.chat import CATEGORICAL, Generation, Score, ask_task, chatcore
from engine.inference.generate import Engine
from engine.sandbox.sandbox import Sandbox, SandboxUnavailable
from engine.tasks.task import Task
from engine.tokenizer.bpe import Tokenizer

Told = Callable[[str, int, int], object]  # task, problems done, problems in all (of this rank)


@dataclass(frozen=True)
class Limits:
    """At most so many problems of each multiple-choice task, and of each task with written answers; None: all."""

    chosen: int | None = None
    written: int | None = None

    def of(self, task: Task) -> int | None:
        return self.chosen if task.kind == "categorical" else self.written


def ask_all(tasks: Mapping[str, Task], engine: Engine, tokenizer: Tokenizer, generation: Generation, limits: Limits,
            context: StageContext, world: World, told: Told | None = None) -> dict[str, Score]:
    """Every task's score by name. Raises Stopped when asked to stop."""
    scores: dict[str, Score] = {}
    for name, task in tasks.items():
        begin = time.monotonic()
        sandbox, reason = _sandbox(world) if name == "HumanEval" else (None, "")
        if reason:
            scores[name] = Score(name, not_run=reason)
            context.log(f"{name}: not run: {reason}")
            continue
        scores[name] = score = ask_task(
            task, engine, tokenizer, generation, max_problems=limits.of(task), sandbox=sandbox, world=world,
            progress=_progress(told, name), should_stop=lambda: context.stop_requested)
        if sandbox is not None:
            sandbox.close()
        if world.any(context.stop_requested):
            raise Stopped
        context.log(f"{name} accuracy: {100 * (score.accuracy or 0.0):.2f}% ({score.right}/{score.total}) in "
                    f"{time.monotonic() - begin:.1f}s")
    return scores


def _progress(told: Told | None, name: str) -> Callable[[int, int], object] | None:
    return (lambda done, count: told(name, done, count)) if told else None


def _sandbox(world: World) -> tuple[Sandbox | None, str]:
    """A proven sandbox on every rank, or why there is none."""
    sandbox, reason = None, ""
    try:
        sandbox = Sandbox()
    except SandboxUnavailable as error:
        reason = f"no isolation: {error}"
    if world.any(bool(reason)):
        if sandbox is not None:
            sandbox.close()
        return None, reason or "no isolation on another process's machine"
    return sandbox, ""


def values_of(scores: Mapping[str, Score]) -> dict[str, float]:
    """An eval event's numbers: accuracy per task that was run, and the two means where nothing lacks for them."""
    values = {f"chat/{name}": score.accuracy for name, score in scores.items() if score.accuracy is not None}
    means = {"chatcore_metric": chatcore(scores), "chatcore_cat": chatcore(scores, CATEGORICAL)}
    return values | {name: value for name, value in means.items() if value is not None}

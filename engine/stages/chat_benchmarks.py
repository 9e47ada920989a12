"""The benchmark half of chat evaluation: which tasks, in which order, and what is told of them.

All data is at hand before the first question is asked, so that a missing dataset costs no evaluated hour. A task that
cannot be run for another reason (no sandbox) is named with that reason, and is no 0 %.
"""

from __future__ import annotations

import time
from typing import Any

from engine.config import ConfigError, nearest
from engine.context import StageContext, Stopped
from engine.device import choose_device
from engine.dist import World, joined
from engine.evals.chat import CATEGORICAL, Generation, Score, ask_task, chatcore, lacking
from engine.inference.generate import Engine
from engine.sandbox.sandbox import Sandbox, SandboxUnavailable
from engine.settings.evaluation import ChatEval
from engine.tasks.table import CHATCORE, TASKS, find
from engine.tasks.task import Task
from engine.tokenizer.bpe import Tokenizer
from engine.train.assemble import check_tokenizer, load_tokenizer
from engine.train.checkpoint import load_model, resolve

ALL = "benchmarks"


def named(task_name: str) -> list[str] | None:
    """The benchmark tasks that `--task-name` names; None when it names none of them. Raises ConfigError."""
    known = {name.lower(): name for name in CHATCORE}
    words = [word.strip() for word in task_name.split("|")]
    if words == [ALL]:
        return list(CHATCORE)
    found = [known[word.lower()] for word in words if word.lower() in known]
    if found and len(found) < len(words):
        odd = next(word for word in words if word.lower() not in known)
        raise ConfigError(f"--task-name: there is no benchmark task {odd!r}{nearest(odd, list(TASKS))}")
    return found or None


def run(config: ChatEval, context: StageContext, names: list[str]) -> None:
    """Ask the tasks; accuracy per task and ChatCORE go to log, events and report."""
    tokenizer = load_tokenizer(context.base_dir)
    folder, step = resolve(context.base_dir, config.source, config.model_tag, config.step)
    check_tokenizer(folder, step, tokenizer)
    device = choose_device(config.device_type, config.dtype)
    with joined(device.device) as world:
        tasks = {name: find(name).load(context.base_dir, "test", log=context.log) for name in names}
        sizes = {name: len(task) for name, task in tasks.items()}  # reads every dataset
        context.log(f"asking {folder} step {step}: {', '.join(f'{name} {n:,}' for name, n in sizes.items())}")
        model, _ = load_model(folder, step, device=device.device, dtype=device.dtype)
        scores = ask_all(tasks, Engine(model, tokenizer), tokenizer, config, context, world)
    tell(scores, config, context, step)


def ask_all(tasks: dict[str, Task], engine: Engine, tokenizer: Tokenizer, config: ChatEval, context: StageContext,
            world: World) -> dict[str, Score]:
    """Every task's score by name. Raises Stopped when asked to stop."""
    settings = Generation(config.num_samples, config.max_new_tokens, config.temperature, config.top_k,
                          config.batch_size)
    scores: dict[str, Score] = {}
    for name, task in tasks.items():
        begin = time.monotonic()
        sandbox, reason = _sandbox(world) if name == "HumanEval" else (None, "")
        if reason:
            scores[name] = Score(name, not_run=reason)
            context.log(f"{name}: not run: {reason}")
            context.events.alert("warning", "not-run", f"{name} was not run: {reason}",
                                 "evaluate it on a machine where the sandbox works")
            continue
        scores[name] = ask_task(
            task, engine, tokenizer, settings, max_problems=config.max_problems, sandbox=sandbox, world=world,
            progress=lambda done, count, name=name: context.progress(done, count, f"problems of {name}"),  # type: ignore[misc]
            should_stop=lambda: context.stop_requested)
        if sandbox is not None:
            sandbox.close()
        if world.any(context.stop_requested):
            raise Stopped
        score = scores[name]
        context.log(f"{name} accuracy: {100 * (score.accuracy or 0.0):.2f}% ({score.right}/{score.total}) in "
                    f"{time.monotonic() - begin:.1f}s")
    return scores


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


def tell(scores: dict[str, Score], config: ChatEval, context: StageContext, step: int) -> None:
    """ChatCORE, or what it lacks; the event and the section of the report."""
    metric, categorical = chatcore(scores), chatcore(scores, CATEGORICAL)
    facts: dict[str, Any] = {"Step": step}
    facts |= {name: score.accuracy if score.accuracy is not None else f"not run: {score.not_run}"
              for name, score in scores.items()}
    values = {f"chat/{name}": score.accuracy for name, score in scores.items() if score.accuracy is not None}
    if metric is not None:
        context.log(f"ChatCORE metric: {metric:.4f}")
        facts["ChatCORE metric"] = values["chatcore_metric"] = metric
    else:
        facts["ChatCORE lacks"] = lacking(scores)
        context.log(f"ChatCORE metric: not computed, it lacks {', '.join(lacking(scores))}")
    if categorical is not None:
        facts["ChatCORE of the multiple choice tasks"] = values["chatcore_cat"] = categorical
    if config.max_problems is not None:
        facts["At most, of each task"] = config.max_problems
    context.events.evaluation(step, **values)
    context.report(f"Chat evaluation {config.source.upper()}", facts)

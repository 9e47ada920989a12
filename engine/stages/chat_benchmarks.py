"""The benchmark half of chat evaluation: which tasks, in which order, and what is told of them.

All data is at hand before the first question is asked, so that a missing dataset costs no evaluated hour.
"""

from __future__ import annotations

from typing import Any

from engine.config import ConfigError, nearest
from engine.context import StageContext
from engine.device import choose_device
from engine.dist import joined
from engine.evals.benchmarks import Limits, ask_all, values_of
from engine.evals.chat import Generation, Score, lacking
from engine.inference.generate import Engine
from engine.settings.evaluation import ChatEval
from engine.tasks.table import CHATCORE, TASKS, find
from engine.train.checkpoint import load_model, resolve
from engine.train.resume import check_tokenizer
from engine.train.workbench import load_tokenizer

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
        generation = Generation(config.num_samples, config.max_new_tokens, config.temperature, config.top_k,
                                config.batch_size)
        scores = ask_all(
            tasks, Engine(model, tokenizer), tokenizer, generation, Limits(config.max_problems, config.max_problems),
            context, world, lambda name, done, count: context.progress(done, count, f"problems of {name}"))
    tell(scores, config, context, step)


def tell(scores: dict[str, Score], config: ChatEval, context: StageContext, step: int) -> None:
    """ChatCORE, or what it lacks; the event and the section of the report."""
    values = values_of(scores)
    facts: dict[str, Any] = {"Step": step}
    for name, score in scores.items():
        facts[name] = f"not run: {score.not_run}" if score.not_run else score.accuracy
        if score.not_run:
            context.events.alert("warning", "not-run", f"{name} was not run: {score.not_run}",
                                 "evaluate it on a machine where the sandbox works")
    if "chatcore_metric" in values:
        context.log(f"ChatCORE metric: {values['chatcore_metric']:.4f}")
        facts["ChatCORE metric"] = values["chatcore_metric"]
    else:
        facts["ChatCORE lacks"] = lacking(scores)
        context.log(f"ChatCORE metric: not computed, it lacks {', '.join(lacking(scores))}")
    if "chatcore_cat" in values:
        facts["ChatCORE of the multiple choice tasks"] = values["chatcore_cat"]
    if config.max_problems is not None:
        facts["At most, of each task"] = config.max_problems
    context.events.evaluation(step, **values)
    context.report(f"Chat evaluation {config.source.upper()}", facts)

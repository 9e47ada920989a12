"""Reinforcement learning: the model answers sums, and answers that end in the right number become more likely.

Which problems a step takes follows from its number, which samples they get from a seed of step, problem and chunk, so
that a resumed run does what an unbroken one would have done, to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.catalog import DIRECTORIES
from engine.config import ConfigError
from engine.context import StageContext, StageError, Stopped
from engine.device import Device, choose_device
from engine.dist import World, joined
from engine.inference.generate import Engine
from engine.model.gpt import GPT
from engine.optim.setup import LearningRates, set_rates, setup_optimizers
from engine.settings.rl import ChatRl
from engine.tasks import table
from engine.tasks.gsm8k import Gsm8kFile
from engine.tasks.task import Task
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion
from engine.train import checkpoint, resume, saving
from engine.train.account import peak_memory_mib
from engine.train.reinforce import as_batch, backward, ensure_gradients, roll_out, sample_rows, solved_at
from engine.train.workbench import load_tokenizer

MOMENTUM = 0.95
_EVAL_SEED = 42


@dataclass
class _Run:
    """Everything that the loop holds. `step` counts finished optimizer steps; `rewards` one mean reward per step."""

    config: ChatRl
    context: StageContext
    device: Device
    world: World
    tokenizer: Tokenizer
    model: GPT
    folder: Path
    problems: Task
    tests: Task
    optimizers: list[torch.optim.Optimizer]
    steps: int
    step: int = 0
    saved_at: int = -1
    rewards: list[float] | None = None
    pass_at: dict[int, float] | None = None
    seconds: float = 0.0
    source: str = "rl"

    @property
    def examples(self) -> int:
        """Problems per step on this rank."""
        return self.config.examples_per_step // self.world.size


def run(config: ChatRl, context: StageContext) -> None:
    """Train the newest `source` model on the problems; leaves chatrl_checkpoints/<tag>."""
    with _set_up(config, context) as job:
        while job.step < job.steps:
            if _due(config.eval_every, job.step):
                _evaluate(job)
            _one_step(job)
            if job.world.any(context.stop_requested):
                _save(job)
                context.log(f"stopped on request after step {job.step}; resume goes on from here")
                raise Stopped
            if job.step < job.steps and _due(config.save_every, job.step):
                _save(job)
        _save(job)
        _evaluate(job)
        context.report("Chat RL", _facts(job))


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


@contextmanager
def _set_up(config: ChatRl, context: StageContext) -> Iterator[_Run]:
    if config.num_samples % min(config.device_batch_size, config.num_samples):
        raise ConfigError(f"--num-samples={config.num_samples} is not a multiple of "
                          f"--device-batch-size={config.device_batch_size}")
    device = choose_device(config.device_type, config.dtype)
    with joined(device.device) as world:
        if config.examples_per_step % world.size:
            raise ConfigError(f"--examples-per-step={config.examples_per_step} cannot be shared by {world.size} ranks")
        job = _load(config, context, replace(device, dtype=world.share(device.dtype)), world)
        _announce(job)
        yield job


def _load(config: ChatRl, context: StageContext, device: Device, world: World) -> _Run:
    """Problems, model and optimizers, at the beginning or at the checkpoint to go on from."""
    tokenizer = load_tokenizer(context.base_dir)
    problems, tests = load_problems(config, context, world.size)
    parent, parent_step = checkpoint.resolve(context.base_dir, config.source, config.model_tag, config.step)
    folder = context.base_dir / DIRECTORIES["rl"] / parent.name
    step = resume.resume_point(config, folder, world)
    device = resume.as_before(device, config, folder, step)
    origin, origin_step = (folder, step) if step is not None else (parent, parent_step)
    resume.check_tokenizer(origin, origin_step, tokenizer)
    model, meta = checkpoint.load_model(origin, origin_step, device=device.device, dtype=device.dtype)
    context.log(f"starting from {origin} step {origin_step}")
    f = config.init_lr_frac
    rates = LearningRates(config.unembedding_lr * f, config.embedding_lr * f, config.matrix_lr * f,
                          config.scalar_lr * f)
    optimizers = setup_optimizers(model, rates, config.weight_decay, world=world)
    steps = config.num_iterations or max(1, len(problems) // config.examples_per_step * config.num_epochs)
    job = _Run(config, context, device, world, tokenizer, model, folder, problems, tests, optimizers, steps)
    if step is not None:
        _restore(job, step, meta.get("loop_state") or {})
    return job


def _restore(job: _Run, step: int, state: dict[str, Any]) -> None:
    job.step = job.saved_at = step
    job.rewards = list(state.get("rewards") or [])
    job.seconds = float(state.get("total_training_time") or 0.0)
    resume.load_optimizers(job.optimizers, job.folder, step, job.device, job.world)


def load_problems(config: ChatRl, context: StageContext, ranks: int = 1) -> tuple[Task, Task]:
    """The problems to learn from, and those that pass@k is measured on. Raises ConfigError or StageError."""
    def load(name: str, split: str) -> Task:
        if name.endswith(".jsonl"):
            path = Path(name).expanduser()
            return Gsm8kFile(path if path.is_absolute() else context.base_dir / path)
        if table.find(name).name not in ("GSM8K", "SpellingBee"):
            raise ConfigError(f"--task={name}: rewards are known for GSM8K, SpellingBee and .jsonl files of sums")
        return table.find(name).load(context.base_dir, split, log=context.log)

    problems = load(config.task, "train")
    tests = load(config.test_task or config.task, "test")
    if len(problems) < ranks:
        raise StageError(f"{config.task} holds {len(problems)} problems, and every one of {ranks} ranks needs one",
                         "choose another --task", "data")
    return problems, tests


def _announce(job: _Run) -> None:
    c, model = job.config, job.model
    job.context.log(f"{len(job.problems):,} problems, {job.steps:,} steps of {c.examples_per_step} problems with "
                    f"{c.num_samples} answers each; {job.device.name}, {job.device.dtype_name}")
    job.context.events.emit("config", {
        "settings": asdict(c), "model": model.config.to_dict(), "n_params": model.n_params(),
        "flops_per_token": model.flops_per_token(), "total_steps": job.steps, "device": job.device.name,
        "dtype": job.device.dtype_name, "world_size": job.world.size, "problems": len(job.problems),
        "resumed_at": job.step or None})


def _one_step(job: _Run) -> None:
    """Sample, mark and push this rank's problems of the step, then move the weights."""
    begin = time.perf_counter()
    c, step, device = job.config, job.step, job.model.device
    engine = Engine(job.model, job.tokenizer)
    pad = job.tokenizer.encode_special("<|assistant_end|>")
    rows_per_pass = min(c.device_batch_size, c.num_samples)
    rewards, lengths, loss = [], [], 0.0
    for place in range(job.examples):
        example = _example(job, step * job.examples + place)
        job.model.eval()
        rows = roll_out(engine, job.tokenizer, job.problems.problem(example), job.problems.mark, c, step, example)
        batch = as_batch(rows, pad, device)
        job.model.train()
        loss += backward(job.model, batch, rows_per_pass, job.examples)
        rewards.append(float(batch.rewards.mean()))
        lengths += batch.lengths
    ensure_gradients(job.model)
    multiplier = 1.0 - step / job.steps
    set_rates(job.optimizers, multiplier, MOMENTUM)
    for optimizer in job.optimizers:
        optimizer.step()
    job.model.zero_grad(set_to_none=True)
    job.step = step + 1
    _account(job, rewards, lengths, loss, multiplier, time.perf_counter() - begin)


def _example(job: _Run, number: int) -> int:
    """The index of this rank's `number`-th problem: r, r + W, ... and again from r after the last."""
    mine = range(job.world.rank, len(job.problems), job.world.size)
    return mine[number % len(mine)]


def _account(job: _Run, rewards: list[float], lengths: list[int], loss: float, multiplier: float,
             seconds: float) -> None:
    shares = job.world.gather((sum(rewards) / len(rewards), sum(lengths) / len(lengths), loss))
    reward, length, loss = (sum(values) / len(shares) for values in zip(*shares, strict=True))
    done = job.step - 1
    job.seconds += seconds
    job.rewards = [*(job.rewards or []), reward]
    job.context.events.metric(done, loss=loss, reward=reward, sequence_length=length, lrm=multiplier, dt=seconds,
                              train_time=job.seconds)
    job.context.progress(job.step, job.steps, "steps", (job.steps - job.step) * seconds)
    job.context.log(f"Step {done}/{job.steps} | Average reward: {reward:.4f} | Average sequence length: {length:.2f} | "
                    f"loss: {loss:.6f} | lrm: {multiplier:.2f} | dt: {1000 * seconds:.0f}ms")


def _evaluate(job: _Run) -> None:
    """pass@1 .. pass@k over the test problems, k samples each; every rank takes a share."""
    c, k = job.config, job.config.device_batch_size
    count = min(c.eval_examples, len(job.tests))
    engine = Engine(job.model, job.tokenizer)
    job.model.eval()
    outcomes = []
    for i in range(job.world.rank, count, job.world.size):
        problem = job.tests.problem(i)
        prompt = render_for_completion(job.tokenizer, problem.messages)
        rows = sample_rows(engine, prompt, k, c, _EVAL_SEED + i)  # one seed for all would tie their luck
        outcomes.append([job.tests.mark(problem, job.tokenizer.decode(ids[len(prompt):])) for ids, _ in rows])
    whole = [one for share in job.world.gather(outcomes) for one in share]
    job.pass_at = {n: sum(solved_at(one, n) for one in whole) / len(whole) for n in range(1, k + 1)}
    job.context.events.evaluation(job.step, **{f"pass@{n}": value for n, value in job.pass_at.items()})
    told = ", ".join(f"Pass@{n}: {value:.4f}" for n, value in job.pass_at.items())
    job.context.log(f"Step {job.step} | {told}")


def _save(job: _Run) -> None:
    """Commit a checkpoint of the state after `step` steps, unless that was done."""
    if job.saved_at == job.step:
        return
    saving.commit(job, job.step, job.optimizers,
                  loop_state={"rewards": job.rewards or [], "total_training_time": job.seconds})
    job.saved_at = job.step


def _facts(job: _Run) -> dict[str, Any]:
    rewards = job.rewards or [0.0]
    tenth = max(1, len(rewards) // 10)
    return {
        "Task": job.config.task, "Number of iterations": job.steps, "Problems": len(job.problems),
        "Answers per problem": job.config.num_samples,
        "Mean reward of the first tenth": sum(rewards[:tenth]) / tenth,
        "Mean reward of the last tenth": sum(rewards[-tenth:]) / tenth,
        **{f"pass@{n}": value for n, value in (job.pass_at or {}).items()},
        "Total training time (s)": job.seconds, "Peak memory (MiB)": peak_memory_mib(job.device),
        "Device": job.device.name, "Precision": job.device.dtype_name, "Ranks": job.world.size,
    }

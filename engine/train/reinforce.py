"""REINFORCE on problems whose answers can be marked: sample, reward, compare with the other samples, push.

As nanochat has it: reward 1 or 0; a sample's advantage is its reward minus the mean over the samples of its problem; no
reference model, no ratio, no clipping. Every sampled token of an answer is pushed by the answer's advantage; what the
calculator forced, the prompt and the padding are not. Pure of stages, files and events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.inference.generate import Engine
from engine.model.gpt import GPT
from engine.model.loss import IGNORE
from engine.tasks.task import Problem
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion

_SEED_BITS = 0x7FFFFFFF


class Answering(Protocol):
    """How answers are sampled; `engine.settings.rl.ChatRl` is one."""

    @property
    def device_batch_size(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...


@dataclass(frozen=True)
class Row:
    """One sampled answer: prompt and answer ids, and for each id whether the model chose it (1) or not (0)."""

    ids: list[int]
    mask: list[int]
    reward: float


@dataclass(frozen=True)
class Batch:
    """The answers to one problem as tensors: inputs and targets (N, T), rewards and advantages (N,)."""

    inputs: Tensor
    targets: Tensor
    rewards: Tensor
    advantages: Tensor
    lengths: list[int]


def rollout_seed(step: int, example: int, chunk: int) -> int:
    """The seed of one chunk of samples: the same in every process and at every resume."""
    return hash((step, example, chunk)) & _SEED_BITS


def sample_rows(engine: Engine, prompt: Sequence[int], count: int, settings: Answering,
                seed: int) -> list[tuple[list[int], list[int]]]:
    """`count` answers to a prompt as (ids, mask), prompt included, the token that ended them not."""
    rows = [(list(prompt), [0] * len(prompt)) for _ in range(count)]
    ended = [False] * count
    for tokens, masks in engine.generate(prompt, num_samples=count, max_tokens=settings.max_new_tokens,
                                         temperature=settings.temperature, top_k=settings.top_k, seed=seed):
        for i, (token, mask) in enumerate(zip(tokens, masks, strict=True)):
            ended[i] = ended[i] or engine.special.ends(token)
            if not ended[i]:
                rows[i][0].append(token)
                rows[i][1].append(mask)
    return rows


def roll_out(engine: Engine, tokenizer: Tokenizer, problem: Problem, right: Callable[[Problem, str], bool],
             settings: Answering, step: int, example: int) -> list[Row]:
    """Sample and mark the answers to problem number `example` at optimizer step `step`."""
    prompt = render_for_completion(tokenizer, problem.messages)
    size = min(settings.device_batch_size, settings.num_samples)
    rows = []
    for chunk in range(settings.num_samples // size):
        for ids, mask in sample_rows(engine, prompt, size, settings, rollout_seed(step, example, chunk)):
            text = tokenizer.decode(ids[len(prompt):])
            rows.append(Row(ids, mask, float(right(problem, text))))
    return rows


def as_batch(rows: Sequence[Row], pad: int, device: torch.device | str) -> Batch:
    """Rows padded to the longest with `pad`; targets are IGNORE wherever the model did not choose the token."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows], device=device)
    chosen = torch.tensor([row.mask + [0] * (width - len(row.mask)) for row in rows], device=device)
    targets = torch.where(chosen[:, 1:] == 1, ids[:, 1:], IGNORE)
    rewards = torch.tensor([row.reward for row in rows], dtype=torch.float32, device=device)
    return Batch(ids[:, :-1], targets, rewards, rewards - rewards.mean(), [len(row.ids) for row in rows])


def backward(model: GPT, batch: Batch, rows_per_pass: int, examples: int) -> float:
    """Add the gradient of this problem's share of the objective; `examples` problems make a step on this rank.

    Returns the loss: minus the sum of log-probability times advantage, per chosen token, pass and problem. Where all
    answers are equally good there is nothing to push and nothing is computed.
    """
    if not bool(batch.advantages.any()):
        return 0.0
    passes = len(batch.rewards) // rows_per_pass
    total = 0.0
    for start in range(0, len(batch.rewards), rows_per_pass):
        part = slice(start, start + rows_per_pass)
        loss = objective(model, batch.inputs[part], batch.targets[part], batch.advantages[part]) / (passes * examples)
        loss.backward()
        total += loss.item()
    return total


def objective(model: GPT, inputs: Tensor, targets: Tensor, advantages: Tensor) -> Tensor:
    """Minus Σ log p(token) · advantage over the chosen tokens, per chosen token."""
    logp = -model(inputs, targets, loss_reduction="none").view_as(inputs)
    chosen = (targets >= 0).sum().clamp(min=1)
    return -(logp * advantages[:, None]).sum() / chosen


def ensure_gradients(model: GPT) -> None:
    """A step in which nothing was pushed still is a step: parameters without gradient get zeros."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def solved_at(outcomes: Sequence[bool], k: int) -> bool:
    """Whether one of the first k answers was right."""
    return any(outcomes[:k])

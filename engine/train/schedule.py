"""Learning rate, momentum, weight decay and horizon as functions of the step and the shape; pure and without tensors:
a resumed run sees what an unbroken one saw, and a recipe can be priced before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.model.config import MODERN, Architecture, GPTConfig, modern_from_depth
from engine.model.counts import flops_per_token, parameter_counts, scaling_params

REFERENCE_BATCH = 524_288  # tokens per step that the modern learning rates are meant for, at depth 12
_REFERENCE_DEPTH = 12
_BATCH_EXPONENT = 0.383  # of the tokens trained on, in the best batch size


def ramp(step: int, total: int, warmup: int, warmdown: int, final: float = 0.0) -> float:
    """Learning-rate multiplier: linear up over `warmup` steps, 1, linear down to `final` over the last `warmdown`."""
    if step < warmup:
        return (step + 1) / warmup
    if step <= total - warmdown:
        return 1.0
    left = (total - step) / warmdown
    return left + (1 - left) * final


def warm_hold_down(step: int, total: int, warmup_ratio: float, warmdown_ratio: float, final: float = 0.0) -> float:
    """The same with both lengths as shares of the steps."""
    return ramp(step, total, round(warmup_ratio * total), round(warmdown_ratio * total), final)


def muon_momentum(step: int, start: float = 0.85, end: float = 0.95, steps: int = 300) -> float:
    """Momentum rises linearly over the first steps, while gradients still turn quickly."""
    done = min(step / steps, 1.0)
    return (1 - done) * start + done * end


def modern_momentum(step: int, total: int, warmdown: int) -> float:
    """0.85 to 0.97 over 400 steps, then 0.97, and down to 0.90 while the learning rate falls."""
    if step < 400:
        return muon_momentum(step, 0.85, 0.97, 400)
    if step < total - warmdown:
        return 0.97
    fallen = (step - (total - warmdown)) / warmdown
    return 0.97 * (1 - fallen) + 0.90 * fallen


def cosine_to_zero(step: int, total: int) -> float:
    """The modern Muon's weight decay, as a share of its first value."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


def horizon(
    num_iterations: int | None,
    target_flops: float | None,
    ratio: float | None,
    *,
    flops_per_token: float,
    tokens_per_step: int,
    n_params: int,
) -> int:
    """Optimizer steps, from the first of the three that is given: steps, FLOPs, or tokens per parameter.

    Raises ValueError when none is given or when the answer is less than one step.
    """
    if num_iterations is not None:
        steps = num_iterations
    elif target_flops is not None:
        steps = round(target_flops / (flops_per_token * tokens_per_step))
    elif ratio is not None:
        steps = int(ratio * n_params) // tokens_per_step
    else:
        raise ValueError("give num_iterations, target_flops or target_param_data_ratio")
    if steps < 1:
        raise ValueError(f"the horizon is shorter than one step of {tokens_per_step:,} tokens")
    return steps


@dataclass(frozen=True)
class Horizon:
    """How long a base model is trained, in steps of how many tokens, and what that does to the rates."""

    steps: int
    tokens_per_step: int
    lr_scale: float = 1.0
    decay_scale: float = 1.0
    counted_params: int = 0  # what a tokens-per-parameter ratio divides by

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step


def plan_horizon(
    shape: GPTConfig,
    architecture: Architecture,
    *,
    num_iterations: int | None,
    target_flops: float | None,
    ratio: float,
    total_batch_size: int | None,
) -> Horizon:
    """The horizon of a base training. Classic: tokens per parameter. Modern: tokens per matrix weight, a batch that
    grows with them, and rates that follow the batch. Raises ValueError."""
    counts = parameter_counts(shape, architecture)
    counted = scaling_params(counts) if architecture.modern else counts["total"]
    batch = total_batch_size or best_batch(shape, counted * ratio, ratio)
    steps = horizon(
        num_iterations,
        target_flops,
        ratio,
        flops_per_token=flops_per_token(shape, architecture),
        tokens_per_step=batch,
        n_params=counted,
    )
    if not architecture.modern:
        return Horizon(steps, batch, counted_params=counted)
    lr_scale = math.sqrt(batch / REFERENCE_BATCH)
    decay = lr_scale * _reference_tokens(shape, ratio) / int(ratio * counted)
    return Horizon(steps, batch, lr_scale, decay, counted)


def best_batch(shape: GPTConfig, tokens: float, ratio: float) -> int:
    """Tokens per step, a power of two: the reference batch at the reference model's horizon, more for longer ones."""
    grown = REFERENCE_BATCH * (int(tokens) / _reference_tokens(shape, ratio)) ** _BATCH_EXPONENT
    return 2 ** round(math.log2(grown))


def _reference_tokens(shape: GPTConfig, ratio: float) -> float:
    """The horizon of the depth-12 model that the modern rates were tuned on, with this vocabulary."""
    twelve = modern_from_depth(
        _REFERENCE_DEPTH, vocab_size=shape.vocab_size, sequence_len=shape.sequence_len, head_dim=shape.head_dim
    )
    return ratio * scaling_params(parameter_counts(twelve, MODERN))

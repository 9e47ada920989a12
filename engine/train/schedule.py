"""Learning rate and momentum as functions of the step; pure, so that a resumed run sees what an unbroken one saw."""

from __future__ import annotations


def warm_hold_down(step: int, total: int, warmup_ratio: float, warmdown_ratio: float, final: float = 0.0) -> float:
    """Learning-rate multiplier: linear up over the first share, 1, linear down to `final` over the last share."""
    warmup, warmdown = round(warmup_ratio * total), round(warmdown_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    if step <= total - warmdown:
        return 1.0
    left = (total - step) / warmdown
    return left + (1 - left) * final


def muon_momentum(step: int, start: float = 0.85, end: float = 0.95, steps: int = 300) -> float:
    """Momentum rises linearly over the first steps, while gradients still turn quickly."""
    done = min(step / steps, 1.0)
    return (1 - done) * start + done * end


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

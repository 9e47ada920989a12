"""What the settings of base training come to: the model's shape, its horizon, the memory of a step. Without tensors, so
that a recipe can be priced where nothing can be trained.
"""

from __future__ import annotations

from engine.model.config import CLASSIC, MODERN, Architecture, GPTConfig, from_depth, modern_from_depth
from engine.settings.training import BaseTrain
from engine.train.schedule import Horizon, plan_horizon

STATE_BYTES = 16  # per parameter: weight, gradient and two moments in float32; Muon has one, its products the rest


def base_shape(config: BaseTrain, vocab_size: int) -> tuple[GPTConfig, Architecture]:
    """The model that base training would make. Raises ValueError when the settings fit no model."""
    if config.architecture == "modern":
        shape = modern_from_depth(config.depth, vocab_size=vocab_size, sequence_len=config.max_seq_len,
                                  aspect_ratio=config.aspect_ratio, head_dim=config.head_dim,
                                  window_pattern=config.window_pattern)  # fmt: skip
        return shape, MODERN
    shape = from_depth(config.depth, vocab_size=vocab_size, sequence_len=config.max_seq_len, width=config.width,
                       head_dim=config.head_dim)  # fmt: skip
    return shape, CLASSIC


def base_horizon(config: BaseTrain, shape: GPTConfig, architecture: Architecture) -> Horizon:
    """Steps and tokens per step. `config` is resolved. Raises ValueError or ZeroDivisionError for an empty one."""
    return plan_horizon(shape, architecture, num_iterations=config.num_iterations, target_flops=config.target_flops,
                        ratio=config.target_param_data_ratio or 0.0, total_batch_size=config.total_batch_size)


def step_bytes(shape: GPTConfig, n_params: int, batch_size: int, seq_len: int, item: int, *, compiled: bool = False,
               on_cpu: bool = False) -> float:
    """Roughly what a training step holds at its largest moment: parameters and their state, and saved activations of
    `item` bytes each.

    Saved per token, layer and channel: norms, q, k, v and their rotations, 4C twice, sums. Compiled, about half of that
    is computed again instead: nanochat's d20 fits 32 rows of 2,048 tokens into 80 GB so, and d32 8 rows. On a CPU our
    own kernels keep less still: 12, and some room that the allocator cannot fill.
    """
    channels = (18 if compiled else 16 if on_cpu else 34) * shape.n_embd
    per_token = item * shape.n_layer * channels + 8 * shape.n_embd
    return n_params * STATE_BYTES + batch_size * seq_len * per_token

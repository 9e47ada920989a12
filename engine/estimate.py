"""What a recipe will take, worked out before anything is loaded: parameters, tokens, FLOPs, memory, hours, dollars.

Training is arithmetic on the shape of the model. The other stages are not, so the time of a whole run is known only
where the recipe's own `[minutes]` say it. Nothing is measured here, and nothing imports tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.config import ConfigError, from_mapping
from engine.hardware import KINDS, MachineKind
from engine.model.config import Architecture, GPTConfig
from engine.model.counts import flops_per_token, parameter_counts
from engine.recipe import Recipe
from engine.settings.data import TokTrain
from engine.settings.training import BaseTrain, ChatSft, Training, resolved
from engine.stage import find
from engine.train.plan import base_horizon, base_shape, step_bytes

_BF16 = 2  # bytes of an activation on the machines of the table


@dataclass(frozen=True)
class TrainingCost:
    """One training stage. `steps` is None where the data decides how long it is; `memory` is bytes on one GPU."""

    stage: str
    parameters: int
    flops_per_token: float
    tokens_per_step: int
    steps: int | None
    memory: float

    @property
    def tokens(self) -> int | None:
        return None if self.steps is None else self.steps * self.tokens_per_step

    @property
    def flops(self) -> float | None:
        return None if self.tokens is None else self.tokens * self.flops_per_token


@dataclass(frozen=True)
class MachineCost:
    """The recipe on one kind of machine. `hours` are the whole run's where somebody measured or published them
    (`measured`), else those of the training stages whose length is known, and so too few."""

    machine: MachineKind
    hours: float
    measured: bool
    fits: bool
    usd: float


def training_costs(recipe: Recipe) -> list[TrainingCost]:
    """The training stages of a recipe in order. Raises ConfigError for settings that make no model or no horizon."""
    found: list[TrainingCost] = []
    made: tuple[GPTConfig, Architecture] | None = None
    for step in recipe.used:
        config: Any = from_mapping(find(step.stage).config, step.args)
        try:
            if isinstance(config, BaseTrain):
                config = resolved(config)
                made = base_shape(config, _vocabulary(recipe))
            if isinstance(config, Training) and made is not None:
                found.append(_cost(step.stage, config, *made))
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"{step.stage}: {error}") from None
    return found


def _vocabulary(recipe: Recipe) -> int:
    args = next((step.args for step in recipe.used if step.stage == "tok_train"), {})
    return from_mapping(TokTrain, args).vocab_size


def _cost(stage: str, config: Training, shape: GPTConfig, architecture: Architecture) -> TrainingCost:
    steps, batch = config.num_iterations, config.total_batch_size
    if isinstance(config, BaseTrain):
        horizon = base_horizon(config, shape, architecture)
        steps, batch = horizon.steps, horizon.tokens_per_step
    elif isinstance(config, ChatSft) and config.target_examples_per_step:
        batch = config.target_examples_per_step * config.max_seq_len  # at most: each example is a row, padded
    total = parameter_counts(shape, architecture)["total"]
    memory = step_bytes(shape, total, config.device_batch_size or 1, config.max_seq_len, _BF16,
                        compiled=config.compile)
    return TrainingCost(stage, total, flops_per_token(shape, architecture), batch or config.max_seq_len, steps, memory)


def machine_costs(recipe: Recipe, usd_per_gpu_hour: float | None = None) -> list[MachineCost]:
    """The recipe on every machine of the table, at list price unless one is given. Raises ConfigError."""
    costs = training_costs(recipe)
    return [_on(kind, recipe, costs, usd_per_gpu_hour) for kind in KINDS.values()] if costs else []


def _on(kind: MachineKind, recipe: Recipe, costs: list[TrainingCost], price: float | None) -> MachineCost:
    minutes = recipe.minutes.get(kind.name)
    hours = minutes / 60 if minutes is not None else sum(c.flops or 0.0 for c in costs) / kind.flops_per_s / 3600
    fits = max(c.memory for c in costs) < kind.gpu.memory_gb * 1e9
    usd = hours * kind.gpus * (kind.gpu.usd_per_hour if price is None else price)
    return MachineCost(kind, hours, minutes is not None, fits, usd)

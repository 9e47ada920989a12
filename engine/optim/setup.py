"""Which optimizer trains which parameter: AdamW for tables and scalars, Muon for the matrices of the blocks.

Groups and their order are nanochat's of the same era: a checkpoint's optimizer state numbers parameters by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.dist import ALONE, World
from engine.model.gpt import GPT
from engine.optim.adamw import AdamW
from engine.optim.muon import Muon, by_shape
from engine.optim.muon_adamw import MuonAdamW


@dataclass(frozen=True)
class LearningRates:
    """AdamW's are meant for 768 channels and are scaled by 1/√(C/768); `scalar` is not, and is for modern models."""

    unembedding: float = 0.004
    embedding: float = 0.2
    matrix: float = 0.02
    scalar: float = 0.5


def setup_optimizers(
    model: GPT,
    rates: LearningRates,
    weight_decay: float = 0.0,
    *,
    world: World = ALONE,
    compiled: bool = False,
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model as nanochat orders them in its checkpoints; every group remembers its `initial_lr`.

    Classic: [AdamW, Muon], `weight_decay` is AdamW's. Modern: [MuonAdamW], it is Muon's, and cautious.
    """
    emulated = model.device.type == "cpu" and model.dtype == torch.float32  # bfloat16 would be slow there
    if model.architecture.modern:
        dtype = model.dtype if model.dtype == torch.bfloat16 else torch.float32
        optimizers = _modern(model, rates, weight_decay, dtype, world, compiled)
    else:
        dtype = torch.float32 if emulated else torch.bfloat16
        optimizers = _classic(model, rates, weight_decay, dtype, world)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
        if group.get("kind") == "muon":
            group["initial_weight_decay"] = group["weight_decay"]
    return optimizers


def _classic(
    model: GPT, rates: LearningRates, weight_decay: float, ns_dtype: torch.dtype, world: World
) -> list[torch.optim.Optimizer]:
    scale = (model.config.n_embd / 768) ** -0.5
    groups = [
        {"params": [model.lm_head.weight], "lr": rates.unembedding * scale},
        {"params": [model.transformer.wte.weight], "lr": rates.embedding * scale},
    ]
    adamw = AdamW(groups, weight_decay=weight_decay, world=world)
    muon = Muon(model.transformer.h.parameters(), lr=rates.matrix, ns_dtype=ns_dtype, world=world)
    return [adamw, muon]


def _modern(
    model: GPT, rates: LearningRates, weight_decay: float, dtype: torch.dtype, world: World, compiled: bool
) -> list[torch.optim.Optimizer]:
    scale = (model.config.n_embd / 768) ** -0.5
    named = dict(model.named_parameters())

    def adamw(lr: float, betas: tuple[float, float], decay: float, *names: str) -> dict[str, Any]:
        params = [p for name, p in named.items() if name.startswith(names)]
        return {"kind": "adamw", "params": params, "lr": lr, "betas": betas, "eps": 1e-10, "weight_decay": decay}

    groups = [
        adamw(rates.unembedding * scale, (0.8, 0.96), 0.01, "lm_head."),
        adamw(rates.embedding * scale, (0.8, 0.995), 0.001, "transformer.wte."),
        adamw(rates.embedding * scale * 0.5, (0.8, 0.995), 0.01, "value_embeds.", "bigram_embed."),
        adamw(rates.scalar * 0.01, (0.8, 0.95), 0.05, "resid_lambdas"),
        adamw(rates.scalar, (0.96, 0.95), 0.0, "x0_lambdas", "bigram_lambdas"),
        {**adamw(0.2, (0.8, 0.95), 0.0), "params": _smear_and_backout(named)},
    ]
    same = by_shape(model.transformer.h.parameters())
    muon = {"kind": "muon", "lr": rates.matrix, "momentum": 0.95, "beta2": 0.9, "ns_steps": 5}
    groups += [{**muon, "params": same[shape], "weight_decay": weight_decay} for shape in sorted(same)]
    return [MuonAdamW([g for g in groups if g["params"]], dtype, world, compiled)]


def _smear_and_backout(named: dict[str, Any]) -> list[Tensor]:
    order = ("smear_gate.weight", "smear_lambda", "backout_lambda")
    return [named[name] for name in order if name in named]


def set_rates(
    optimizers: list[torch.optim.Optimizer], lr_multiplier: float, muon_momentum: float, decay_multiplier: float = 1.0
) -> None:
    """Scale every learning rate and the modern Muon's weight decay from their initial values, and set Muon's momentum,
    for the coming step."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["initial_lr"] * lr_multiplier
        if "momentum" in group:
            group["momentum"] = muon_momentum
        if "initial_weight_decay" in group:
            group["weight_decay"] = group["initial_weight_decay"] * decay_multiplier


def set_averaged(optimizers: list[torch.optim.Optimizer], averaged: bool) -> None:
    """Tell them whether the gradients of the coming steps are the mean over all ranks already."""
    for optimizer in optimizers:
        optimizer.averaged = averaged  # type: ignore[attr-defined]

"""Which optimizer trains which parameter: AdamW for the two embedding tables, Muon for the matrices of the blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.model.gpt import GPT
from engine.optim.muon import Muon


@dataclass(frozen=True)
class LearningRates:
    """AdamW's are meant for 768 channels and are scaled by 1/√(C/768)."""

    unembedding: float = 0.004
    embedding: float = 0.2
    matrix: float = 0.02


def setup_optimizers(model: GPT, rates: LearningRates, weight_decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """[AdamW, Muon], as nanochat orders them in its checkpoints; every group remembers its `initial_lr`."""
    width_scale = (model.config.n_embd / 768) ** -0.5
    groups = [
        {"params": [model.lm_head.weight], "lr": rates.unembedding * width_scale},
        {"params": [model.transformer.wte.weight], "lr": rates.embedding * width_scale},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=weight_decay, fused=True)
    emulated = model.device.type == "cpu" and model.dtype == torch.float32  # bfloat16 would be slow there
    muon = Muon(
        model.transformer.h.parameters(), lr=rates.matrix, ns_dtype=torch.float32 if emulated else torch.bfloat16
    )
    for optimizer in (adamw, muon):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [adamw, muon]


def set_rates(optimizers: list[torch.optim.Optimizer], lr_multiplier: float, muon_momentum: float) -> None:
    """Scale every learning rate from its initial value and set Muon's momentum, for the coming step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr_multiplier
            if "momentum" in group:
                group["momentum"] = muon_momentum

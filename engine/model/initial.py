"""Initial weights: nanochat's classic recipe and its modern one. Random numbers come from one generator, so that a seed
fixes every weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.model.config import GPTConfig

Named = Sequence[tuple[str, Tensor]]


@torch.no_grad()
def init_classic(named: Named, generator: torch.Generator | None) -> None:
    """Normal with std min(1, √(out/in))/√in, but for the embedding, whose std is 1. Every projection back to the
    stream, and lm_head, start at zero."""
    parameters = dict(named)
    nn.init.normal_(parameters["transformer.wte.weight"], generator=generator)
    for name, parameter in named:
        if name.endswith("wte.weight"):
            continue
        fan_out, fan_in = parameter.shape
        if name.endswith("c_proj.weight") or name == "lm_head.weight":
            nn.init.zeros_(parameter)
        else:
            std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
            nn.init.normal_(parameter, std=std, generator=generator)


@torch.no_grad()
def init_modern(config: GPTConfig, named: Named, generator: torch.Generator | None) -> None:
    """Uniform within √3/√C for q, k, v and value embeddings (so std is 1/√C), 0.4 of that for c_fc, projections back
    to the stream at zero; per-layer scalars lean on the embedding in early layers."""
    bound = math.sqrt(3) * config.n_embd**-0.5
    for name, parameter in named:
        match name.removesuffix(".weight").split("."):
            case ["transformer", "wte"]:
                nn.init.normal_(parameter, std=0.8, generator=generator)
            case ["lm_head"]:
                nn.init.normal_(parameter, std=0.001, generator=generator)
            case [*_, "c_q" | "c_k" | "c_v"] | ["value_embeds", _]:
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            case [*_, "c_fc"]:
                nn.init.uniform_(parameter, -0.4 * bound, 0.4 * bound, generator=generator)
            case [*_, "ve_gate"] | ["smear_gate"]:
                nn.init.uniform_(parameter, 0.0, 0.02, generator=generator)
            case ["resid_lambdas"]:
                parameter.copy_(_falling(1.15, 0.10, config.n_layer))
            case ["x0_lambdas"]:
                parameter.copy_(_falling(0.20, 0.15, config.n_layer))
            case ["backout_lambda"]:
                nn.init.constant_(parameter, 0.2)
            case _:  # c_proj, smear_lambda, bigram embeddings and their scalars
                nn.init.zeros_(parameter)


def _falling(first: float, fall: float, n_layer: int) -> Tensor:
    """(L,) from `first` down by `fall` to the last layer."""
    return torch.tensor([first - fall * i / max(n_layer - 1, 1) for i in range(n_layer)])

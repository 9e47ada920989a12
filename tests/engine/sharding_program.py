"""One rank of a small world: trains on made-up gradients, alone or sharded, and tells what came out.

python sharding_program.py FOLDER reads FOLDER/single_<kind>.pt (a single process after STEPS steps: weights, optimizer
state) and writes FOLDER/world_<kind>.pt from rank 0: weights after 2 x STEPS steps on three ways, and the shards.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from engine.dist import ALONE, World, joined
from engine.model.config import CLASSIC, MODERN, GPTConfig
from engine.model.gpt import GPT
from engine.optim.setup import LearningRates, set_averaged, setup_optimizers
from engine.optim.shards import load_shards

STEPS, PARTS = 3, 4  # optimizer steps; gradients per step, which every world averages
KINDS = ("classic", "modern")


def model_of(kind: str) -> GPT:
    pattern = "SL" if kind == "modern" else None
    model = GPT(GPTConfig(32, 64, 3, 2, 2, 32, pattern), MODERN if kind == "modern" else CLASSIC)
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.05)
    return model


def optimizers_of(model: GPT, world: World) -> list[torch.optim.Optimizer]:
    return setup_optimizers(model, LearningRates(), 0.1 if model.architecture.modern else 0.0, world=world)


def gradient(step: int, part: int, index: int, shape: torch.Size) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step * 1000 + part * 100 + index))


def in_pairs(parts: list[torch.Tensor]) -> torch.Tensor:
    """Their sum, as a tree: one process and two ranks then add in the same order."""
    half = len(parts) // 2
    return parts[0] if not half else in_pairs(parts[:half]) + in_pairs(parts[half:])


def advance(model: GPT, optimizers: list[torch.optim.Optimizer], steps: range, world: World, averaged: bool) -> None:
    """Each rank has its share of the PARTS gradients of a step, averaged; the world's mean is that of all of them."""
    share = PARTS // world.size
    mine = range(world.rank * share, (world.rank + 1) * share)
    for step in steps:
        for index, p in enumerate(model.parameters()):
            p.grad = in_pairs([gradient(step, part, index, p.shape) for part in mine]) / share
        if averaged:
            world.average([p.grad for p in model.parameters() if p.grad is not None])
        set_averaged(optimizers, averaged)
        for optimizer in optimizers:
            optimizer.step()


def states(optimizers: list[torch.optim.Optimizer]) -> list[Any]:
    return [o.state_dict() for o in optimizers]


def weights(model: GPT) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def continued(kind: str, start: dict[str, Any], world: World) -> dict[str, torch.Tensor]:
    """Weights after STEPS more steps from saved weights and shards."""
    model = model_of(kind)
    model.load_state_dict(start["weights"])
    optimizers = optimizers_of(model, world)
    load_shards(optimizers, lambda rank: deepcopy(start["shards"][rank]), len(start["shards"]), world)
    advance(model, optimizers, range(STEPS, 2 * STEPS), world, averaged=False)
    return weights(model)


def first_half(kind: str, world: World, averaged: bool = False) -> dict[str, Any]:
    model = model_of(kind)
    optimizers = optimizers_of(model, world)
    advance(model, optimizers, range(STEPS), world, averaged)
    return {"weights": weights(model), "shards": world.gather(states(optimizers))}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as world:
        for kind in KINDS:
            half = first_half(kind, world)
            single = torch.load(folder / f"single_{kind}.pt", weights_only=True)
            told = {
                "half": half,
                "averaged": first_half(kind, world, averaged=True)["weights"],
                "resumed": continued(kind, half, world),
                "from_single": continued(kind, single, world),
                "same_everywhere": all(
                    torch.equal(a, b)
                    for other in world.gather(half["weights"])
                    for a, b in zip(half["weights"].values(), other.values(), strict=True)
                ),
                "any": (world.any(world.rank == world.size - 1), world.any(False)),
                "shared": world.share(world.rank),
            }
            if world.rank == 0:
                torch.save(told, folder / f"world_{kind}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    assert ALONE.size == 1

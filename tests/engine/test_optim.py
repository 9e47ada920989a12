"""Ten steps of Muon + AdamW against nanochat's, and the properties Muon promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.model.config import CLASSIC, config_from_meta
from engine.model.gpt import gpt_from_state
from engine.optim.muon import Muon, orthogonalize
from engine.optim.setup import LearningRates, set_rates, setup_optimizers


def test_ten_steps_follow_upstream(fixtures: Path) -> None:
    folder = fixtures / "pipeline" / "seed"
    facts = json.loads((folder / "training.json").read_text())
    batches = np.load(folder / "batches.npz")
    state = torch.load(folder / "train_init.pt", weights_only=True)
    trained = {k: v.clone() for k, v in state.items()}
    model = gpt_from_state(config_from_meta(facts["config"]), CLASSIC, trained, dtype=torch.float32)
    optimizers = setup_optimizers(model, LearningRates())
    losses = []
    for x, y in zip(batches["x"][:10], batches["y"][:10], strict=True):
        loss = model(torch.from_numpy(x).long(), torch.from_numpy(y).long())
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert losses[0] == pytest.approx(facts["losses"][0], abs=1e-5)
    assert losses == pytest.approx(facts["losses"], abs=1e-2)
    final = torch.load(folder / "train_final.pt", weights_only=True)
    for key, tensor in model.state_dict().items():
        moved = (final[key] - state[key]).norm()
        assert (tensor - final[key]).norm() <= 0.15 * moved + 1e-6, key  # the iterations run in bfloat16


def test_learning_rates_are_scaled_by_width_and_remembered() -> None:
    from engine.model.config import GPTConfig
    from engine.model.gpt import GPT

    optimizers = setup_optimizers(GPT(GPTConfig(16, 64, 1, 2, 2, 192)), LearningRates(0.004, 0.2, 0.02))
    adamw, muon = optimizers
    assert [g["lr"] for g in adamw.param_groups] == pytest.approx([0.008, 0.4])
    set_rates(optimizers, 0.5, 0.9)
    assert [g["lr"] for g in adamw.param_groups] == pytest.approx([0.004, 0.2])
    assert all(g["lr"] == 0.01 and g["momentum"] == 0.9 for g in muon.param_groups)


@pytest.mark.parametrize("shape", [(64, 40), (128, 32), (32, 128)])
def test_orthogonalized_matrices_have_near_unit_singular_values(shape: tuple[int, int]) -> None:
    G = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(G).float())
    assert 0.3 < values.min() and values.max() < 1.6


def test_stacking_matrices_changes_nothing() -> None:
    """A matrix alone and the same one beside others of its shape get the same update."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(16, 8, generator=generator) for _ in range(3)]

    def step(chosen: list[torch.Tensor]) -> list[torch.Tensor]:
        params = [torch.zeros(16, 8, requires_grad=True) for _ in chosen]
        for p, g in zip(params, chosen, strict=True):
            p.grad = g.clone()
        Muon(params, ns_dtype=torch.float32).step()
        return [p.detach() for p in params]

    for together, alone in zip(step(grads), [step([g])[0] for g in grads], strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_muon_reduces_a_quadratic() -> None:
    target = torch.randn(24, 12, generator=torch.Generator().manual_seed(0))
    p = torch.zeros(24, 12, requires_grad=True)
    optimizer = Muon([p], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (p - target).square().sum().backward()
        optimizer.step()
    assert (p - target).norm() < 0.5 * target.norm()

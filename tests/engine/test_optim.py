"""Ten steps of Muon + AdamW against nanochat's, and the properties Muon promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.model.config import CLASSIC, MODERN, GPTConfig, architecture_of, config_from_meta
from engine.model.gpt import GPT, gpt_from_state
from engine.optim.adamw import AdamW
from engine.optim.muon import Muon
from engine.optim.muon_adamw import MuonAdamW
from engine.optim.orthogonal import newton_schulz, polar_express
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
    optimizers = setup_optimizers(GPT(GPTConfig(16, 64, 1, 2, 2, 192)), LearningRates(0.004, 0.2, 0.02))
    adamw, muon = optimizers
    assert [g["lr"] for g in adamw.param_groups] == pytest.approx([0.008, 0.4])
    set_rates(optimizers, 0.5, 0.9)
    assert [g["lr"] for g in adamw.param_groups] == pytest.approx([0.004, 0.2])
    assert all(g["lr"] == 0.01 and g["momentum"] == 0.9 for g in muon.param_groups)


@pytest.mark.parametrize("shape", [(64, 40), (128, 32), (32, 128)])
def test_orthogonalized_matrices_have_near_unit_singular_values(shape: tuple[int, int]) -> None:
    G = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(newton_schulz(G.bfloat16()).float())
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


def test_ten_modern_steps_follow_upstream(fixtures: Path) -> None:
    folder = fixtures / "pipeline" / "head"
    facts = json.loads((folder / "training.json").read_text())
    batches = np.load(folder / "batches.npz")
    state = torch.load(folder / "train_init.pt", weights_only=True)
    config = config_from_meta(facts["config"])
    model = gpt_from_state(config, architecture_of(state, config), state, dtype=torch.float32)
    [optimizer] = setup_optimizers(model, LearningRates(), facts["weight_decay"])
    losses = []
    for x, y in zip(batches["x"][:10], batches["y"][:10], strict=True):
        loss = model(torch.from_numpy(x).long(), torch.from_numpy(y).long())
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(facts["losses"][0], abs=1e-5)
    # The scalars' gradients are 0 but for rounding at first, near 1e-11 beside an epsilon of 1e-10: rounding becomes a
    # different step, and weights that differ by 1e-7 at the start part by 0.04 at the fifth and 0.4 in the middle. They
    # meet again.
    assert losses[:4] == pytest.approx(facts["losses"][:4], abs=1e-2)
    assert losses[-1] == pytest.approx(facts["losses"][-1], abs=6e-2)


def test_adamw_is_torchs_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        [torch.randn(70, 33, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in range(2)]
        for _ in range(2)
    )
    a = AdamW([{"params": [p], "lr": 0.1} for p in ours], weight_decay=0.1)
    b = torch.optim.AdamW(
        [{"params": [p], "lr": 0.1} for p in theirs], betas=(0.8, 0.95), eps=1e-10, weight_decay=0.1, fused=True
    )
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    b.load_state_dict(a.state_dict())  # and what ours saves, theirs reads
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(b.state[q]["exp_avg_sq"], a.state[p]["exp_avg_sq"])


def test_the_modern_muon_equals_a_slow_one(shape: tuple[int, int] = (12, 20)) -> None:
    """Three steps against the published steps written out matrix by matrix in double precision."""
    for rows, cols in (shape, shape[::-1]):
        generator = torch.Generator().manual_seed(1)
        params = [torch.randn(rows, cols, generator=generator).requires_grad_() for _ in range(3)]
        slow = [SlowMuon(p.detach().double()) for p in params]
        group = {"kind": "muon", "params": params, "lr": 0.02, "momentum": 0.9, "beta2": 0.9, "ns_steps": 5}
        optimizer = MuonAdamW([{**group, "weight_decay": 0.3}])
        for _ in range(3):
            for p, twin in zip(params, slow, strict=True):
                p.grad = torch.randn(p.shape, generator=generator)
                twin.step(p.grad.double(), lr=0.02, momentum=0.9, beta2=0.9, weight_decay=0.3)
            optimizer.step()
        for p, twin in zip(params, slow, strict=True):
            torch.testing.assert_close(p.detach().double(), twin.p, rtol=0, atol=1e-5)


class SlowMuon:
    """One matrix, step by step as nanochat's present optimizer is described."""

    def __init__(self, p: torch.Tensor) -> None:
        self.p, self.momentum, self.second = p, torch.zeros_like(p), torch.zeros(())

    def step(self, g: torch.Tensor, lr: float, momentum: float, beta2: float, weight_decay: float) -> None:
        m, n = g.shape
        self.momentum = momentum * self.momentum + (1 - momentum) * g
        u = (1 - momentum) * g + momentum * self.momentum
        mean_row = u.norm() / m**0.5
        u = torch.stack([row * mean_row / row.norm() for row in u])
        u = polar_express(u[None])[0]
        u = u * min(m, n) ** 0.5 / u.norm()
        moment = u.square().mean(dim=1 if m >= n else 0, keepdim=True)
        self.second = beta2 * self.second + (1 - beta2) * moment
        scaled = u / self.second.sqrt()
        u = scaled * u.norm() / scaled.norm()
        lr *= max(1, m / n) ** 0.5
        self.p = self.p - lr * u - lr * weight_decay * self.p * (u * self.p >= 0)


def test_modern_groups_are_nanochats() -> None:
    """Order, rates and number of parameters of every group, as nanochat's optimizer files number them."""
    model = GPT(GPTConfig(16, 64, 4, 2, 2, 192, "SL"), MODERN)
    [optimizer] = setup_optimizers(model, LearningRates(0.004, 0.2, 0.02, 0.5), 0.28)
    told = [(g["kind"], len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups]
    assert told[:6] == [("adamw", 1, 0.01), ("adamw", 1, 0.001), ("adamw", 2, 0.01), ("adamw", 1, 0.05),
                        ("adamw", 1, 0.0), ("adamw", 3, 0.0)]  # fmt: skip
    shapes = [tuple(g["params"][0].shape) for g in optimizer.param_groups[6:]]
    assert shapes == [(2, 12), (192, 192), (192, 768), (768, 192)]
    assert [g["lr"] for g in optimizer.param_groups[:6]] == pytest.approx([0.008, 0.4, 0.2, 0.005, 0.5, 0.2])
    set_rates([optimizer], 0.5, 0.9, decay_multiplier=0.25)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01 and optimizer.param_groups[-1]["weight_decay"] == 0.07
    assert optimizer.param_groups[-1]["momentum"] == 0.9


@pytest.mark.parametrize("shape", [(64, 40), (32, 128)])
def test_polar_express_is_nearer_to_orthogonal(shape: tuple[int, int]) -> None:
    G = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(polar_express(G))
    assert 0.7 < values.min() and values.max() < 1.3

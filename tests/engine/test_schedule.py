"""Schedules and horizons against nanochat's worked numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.model.config import CLASSIC, MODERN, from_depth, modern_from_depth
from engine.train.schedule import (
    cosine_to_zero,
    horizon,
    modern_momentum,
    muon_momentum,
    plan_horizon,
    ramp,
    warm_hold_down,
)


def test_horizons_of_known_models() -> None:
    def steps(n_params: int, flops: float, **given: float | None) -> int:
        values = {"num_iterations": None, "target_flops": None, "ratio": None, **given}
        return horizon(**values, flops_per_token=flops, tokens_per_step=524_288, n_params=n_params)  # type: ignore[arg-type]

    assert steps(560_988_160, 3.491758e9, ratio=20) == 21_400
    assert steps(1_879_048_192, 1.20796e10, ratio=20) == 71_680
    assert steps(560_988_160, 3.491758e9, target_flops=3.917670e19, ratio=20) == 21_400
    assert steps(560_988_160, 3.491758e9, num_iterations=7, target_flops=1e30) == 7
    with pytest.raises(ValueError, match="shorter than one step"):
        steps(1000, 1e6, ratio=20)
    with pytest.raises(ValueError, match="give num_iterations"):
        steps(1000, 1e6)


def test_learning_rate_runs_up_holds_and_falls() -> None:
    curve = [warm_hold_down(step, 100, 0.1, 0.2, 0.1) for step in range(101)]
    assert curve[0] == pytest.approx(0.1) and curve[9] == 1.0
    assert all(value == 1.0 for value in curve[9:81])
    assert curve[90] == pytest.approx(0.5 + 0.5 * 0.1) and curve[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(curve[80:]))


def test_no_warmdown_means_full_rate_to_the_end() -> None:
    assert [warm_hold_down(s, 10, 0.0, 0.0) for s in range(11)] == [1.0] * 11


def test_momentum_rises_for_300_steps() -> None:
    assert muon_momentum(0) == pytest.approx(0.85)
    assert muon_momentum(150) == pytest.approx(0.90)
    assert muon_momentum(300) == muon_momentum(10_000) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("depth", "ratio", "batch", "steps"),
    [
        (6, 12, 262_144, 1_062),
        (12, 12, 524_288, 2_520),
        (16, 12, 524_288, 5_376),
        (20, 12, 1_048_576, 4_980),
        (24, 12, 1_048_576, 8_352),
        (24, 8, 1_048_576, 5_568),
        (26, 12, 1_048_576, 10_510),
        (32, 12, 2_097_152, 9_600),
    ],
)
def test_the_modern_horizon(depth: int, ratio: float, batch: int, steps: int) -> None:
    shape = modern_from_depth(depth, vocab_size=32768, sequence_len=2048)
    plan = plan_horizon(shape, MODERN, num_iterations=None, target_flops=None, ratio=ratio, total_batch_size=None)
    assert (plan.tokens_per_step, plan.steps) == (batch, steps)
    assert plan.lr_scale == pytest.approx((batch / 524_288) ** 0.5)


def test_modern_rates_follow_the_batch_and_the_horizon() -> None:
    shape = modern_from_depth(24, vocab_size=32768, sequence_len=2048)
    plan = plan_horizon(shape, MODERN, num_iterations=None, target_flops=None, ratio=8, total_batch_size=None)
    assert plan.lr_scale == pytest.approx(1.4142, abs=1e-4)
    assert 0.28 * plan.decay_scale == pytest.approx(0.059738, abs=1e-6)
    small = modern_from_depth(2, vocab_size=1024, sequence_len=128, head_dim=64, window_pattern="SL")
    plan = plan_horizon(small, MODERN, num_iterations=60, target_flops=None, ratio=12, total_batch_size=512)
    assert (plan.steps, plan.lr_scale) == (60, 0.03125)
    assert 0.28 * plan.decay_scale == pytest.approx(1.430574, abs=1e-6)


@pytest.mark.parametrize(
    ("depth", "steps"), [(4, 1_400), (12, 7_080), (20, 21_400), (26, 41_275), (32, 71_680)]
)
def test_the_classic_horizon(depth: int, steps: int) -> None:
    shape = from_depth(depth, vocab_size=65536, sequence_len=2048)
    plan = plan_horizon(shape, CLASSIC, num_iterations=None, target_flops=None, ratio=20, total_batch_size=524_288)
    assert (plan.steps, plan.lr_scale, plan.decay_scale) == (steps, 1.0, 1.0)


def test_modern_momentum_and_decay() -> None:
    assert modern_momentum(0, 2000, 1300) == pytest.approx(0.85)
    assert modern_momentum(400, 2000, 1300) == pytest.approx(0.97)
    assert modern_momentum(1350, 2000, 1300) == pytest.approx(0.935)
    assert modern_momentum(2000, 2000, 1300) == pytest.approx(0.90)
    assert modern_momentum(59, 60, 39) == pytest.approx(0.85 + 0.12 * 59 / 400)  # the rise wins in a short run
    assert [cosine_to_zero(s, 100) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert [ramp(s, 100, 40, 65, 0.05) for s in (0, 39, 100)] == pytest.approx([1 / 40, 1, 0.05])

"""Schedules and horizons against nanochat's worked numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.train.schedule import horizon, muon_momentum, warm_hold_down


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

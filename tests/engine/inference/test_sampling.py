"""What the sampler draws, against the probabilities it should draw from."""

from __future__ import annotations

import pytest
import torch

from engine.inference.sampling import Sampler, Sampling

N = 20_000


def frequencies(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    ids = Sampler(sampling)(logits.expand(N, -1))
    return torch.bincount(ids, minlength=logits.shape[-1]) / N


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.tensor([0.1, 2.0, -1.0, 1.0, 0.5, 1.9, -3.0, 0.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_plain_sampling_follows_the_softmax(logits: torch.Tensor, temperature: float) -> None:
    expected = (logits / temperature).softmax(-1)
    assert (frequencies(logits, Sampling(temperature)) - expected).abs().max() < 0.015


@pytest.mark.parametrize("top_k", [1, 3, 7, 8, 100])
def test_top_k_renormalises_the_likeliest(logits: torch.Tensor, top_k: int) -> None:
    keep = logits.topk(min(top_k, 8)).indices
    expected = torch.zeros(8)
    expected[keep] = (logits[keep] / 0.7).softmax(-1)
    got = frequencies(logits, Sampling(0.7, top_k=top_k))
    assert (got - expected).abs().max() < 0.015 and torch.equal(got > 0, expected > 0) | (top_k > 7)


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, 1), (0.34, 1), (0.37, 2), (0.6, 2), (0.78, 3), (0.85, 4), (1.0, 8)])
def test_top_p_keeps_the_fewest_that_reach_it(logits: torch.Tensor, top_p: float, kept: int) -> None:
    order = logits.argsort(descending=True)
    expected = torch.zeros(8)
    expected[order[:kept]] = logits[order[:kept]].softmax(-1)
    assert (frequencies(logits, Sampling(1.0, top_p=top_p)) - expected).abs().max() < 0.015


def test_top_p_that_is_just_reached_needs_no_more() -> None:
    assert frequencies(torch.zeros(2), Sampling(1.0, top_p=0.5)).tolist() == [1.0, 0.0]


def test_top_k_then_top_p(logits: torch.Tensor) -> None:
    got = frequencies(logits, Sampling(1.0, top_k=3, top_p=0.5))  # of the three likeliest, two reach one half
    expected = torch.zeros(8)
    expected[[1, 5]] = logits[[1, 5]].softmax(-1)
    assert (got - expected).abs().max() < 0.015


def test_zero_and_none_are_off(logits: torch.Tensor) -> None:
    a = Sampler(Sampling(1.0, top_k=0, top_p=None, seed=5))(logits.expand(200, -1))
    b = Sampler(Sampling(1.0, top_k=None, top_p=1.0, seed=5))(logits.expand(200, -1))
    assert torch.equal(a, b)


def test_temperature_zero_is_argmax_whatever_the_seed(logits: torch.Tensor) -> None:
    for seed in (1, 2, None):
        assert Sampler(Sampling(0, top_k=2, top_p=0.1, seed=seed))(logits[None]).tolist() == [1]


def test_the_seed_decides_and_requests_do_not_disturb_each_other(logits: torch.Tensor) -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(1.0, seed=seed))
        return [int(sampler(logits[None])) for _ in range(40)]

    first = draw(7)
    torch.manual_seed(0)
    torch.rand(100)
    assert draw(7) == first
    assert draw(8) != first
    assert draw(None) != draw(None)

"""The loss without whole logits against the loss with them: same value, same gradients, less memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model import loss as module
from engine.model.layers import rms_norm
from engine.model.loss import IGNORE, mean_cross_entropy, row_cross_entropy


def data(n: int, dtype: torch.dtype = torch.float32, rows: int = 320) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 24, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(rows, 24, generator=generator).mul_(2).requires_grad_()
    targets = torch.randint(0, 300, (n,), generator=generator)
    targets[::7] = IGNORE
    return x, weight, targets


def naive(x: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    logits = 15 * torch.tanh(F.linear(x, weight.to(x.dtype))[:, :300].float() / 15)
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction=reduction)


@pytest.fixture(params=["our kernels", "PyTorch"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing it: on a CPU, and as on a GPU."""
    if request.param == "PyTorch":
        monkeypatch.setattr(module.row_kernels, "know", lambda x: False)


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("n", [1, 63, 64, 200, 2500])
def test_value_and_gradients_are_those_of_whole_logits(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 64 * 300)
    x, weight, targets = data(n)
    targets[0] = 5
    expected = naive(x, weight, targets)
    (expected * 3).backward()
    dx, dw = x.grad, weight.grad
    x.grad = weight.grad = None
    loss = mean_cross_entropy(x, weight, targets, 300, 15.0)
    (loss * 3).backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(x.grad, dx, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight.grad, dw, rtol=1e-4, atol=1e-6)
    assert weight.grad is not None and not weight.grad[300:].any()  # padding learns nothing
    with torch.no_grad():
        assert mean_cross_entropy(x, weight, targets, 300, 15.0).item() == pytest.approx(expected.item(), abs=1e-5)
        torch.testing.assert_close(
            row_cross_entropy(x, weight, targets, 300, 15.0), naive(x, weight, targets, "none"), rtol=0, atol=1e-5
        )


@pytest.mark.usefixtures("by")
def test_in_bfloat16_it_is_as_near_as_the_precision() -> None:
    x, weight, targets = data(500, torch.bfloat16)
    naive(x, weight, targets).backward()
    dx, dw = x.grad, weight.grad
    x.grad = weight.grad = None
    mean_cross_entropy(x, weight, targets, 300, 15.0).backward()
    assert dx is not None and dw is not None and x.grad is not None and weight.grad is not None
    assert (x.grad.float() - dx.float()).norm() < 0.02 * dx.float().norm()
    assert (weight.grad - dw).norm() < 0.02 * dw.norm()


@pytest.mark.usefixtures("by")
def test_nothing_to_predict_is_not_a_number_and_touches_nothing_else() -> None:
    x, weight, _ = data(10)
    assert mean_cross_entropy(x, weight, torch.full((10,), IGNORE), 300, 15.0).isnan()


def test_a_target_beyond_the_vocabulary_is_refused() -> None:
    x, weight, targets = data(10)
    targets[3] = 300
    with pytest.raises(IndexError, match="target 300 is not in a vocabulary of 300 tokens"):
        mean_cross_entropy(x, weight, targets, 300, 15.0)


def test_the_norm_with_its_own_gradient_is_torchs() -> None:
    dtype, near = torch.bfloat16, 1e-2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 64, generator=generator).mul_(3).to(dtype).requires_grad_()
    outer = torch.randn(x.shape, generator=generator).to(dtype)
    expected = F.rms_norm(x, (64,))
    expected.backward(outer)
    dx, x.grad = x.grad, None
    y = rms_norm(x)
    y.backward(outer)
    assert dx is not None and x.grad is not None and y.dtype == dtype == x.grad.dtype
    assert (y - expected).norm() <= near * expected.norm()
    assert (x.grad - dx).norm() <= near * dx.norm()
    assert torch.equal(rms_norm(x.detach()), expected.detach())  # where nothing is trained, torch's own bits
    assert rms_norm(torch.zeros(2, 8, dtype=dtype, requires_grad=True)).abs().sum() == 0

"""The training step's own operations on a CPU against PyTorch's, composed plainly and differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model import cpu_attention
from engine.model.attention import rotate, sight
from engine.model.config import CLASSIC, MODERN, from_depth, modern_from_depth
from engine.model.cpu_attention import CausalAttention
from engine.model.gpt import GPT
from engine.model.row_kernels import Norm, Relu2MLP, RotateNorm

PRECISIONS = [(torch.float32, 3e-6), (torch.bfloat16, 1e-2)]


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def compare(ours: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor], near: float) -> None:
    """Results and gradients of both, the plain ones computed in float32."""
    exact = [x.detach().float().requires_grad_() for x in inputs]
    y, expected = ours(*inputs), plain(*exact)
    outer = torch.randn(expected.shape, generator=torch.Generator().manual_seed(99)).to(y.dtype)
    y.backward(outer)
    expected.backward(outer.float())
    assert y.shape == expected.shape and y.dtype == inputs[0].dtype
    for found, right in zip([y, *(x.grad for x in inputs)], [expected, *(x.grad for x in exact)], strict=True):
        assert found is not None and right is not None
        assert (found.float() - right).norm() <= near * max(1.0, right.norm().item())  # a gradient may be 0


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_norm(dtype: torch.dtype, near: float) -> None:
    compare(Norm.apply, lambda x: F.rms_norm(x, (70,)), [random(3, 5, 70, dtype=dtype)], near)
    strided = random(3, 70, 5, dtype=dtype)
    compare(lambda x: Norm.apply(x.mT), lambda x: F.rms_norm(x.mT, (70,)), [strided], near)


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_rotation_and_norm(dtype: torch.dtype, near: float) -> None:
    angle = random(7, 1, 4, dtype=torch.float32).detach()
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)

    def plain(x: Tensor) -> Tensor:
        return F.rms_norm(rotate(x, cos.float(), sin.float()), (8,)).mul(1.2).transpose(1, 2)

    compare(lambda x: RotateNorm.apply(x, cos, sin, 1.2), plain, [random(2, 7, 3, 8, dtype=dtype, seed=1)], near)


def test_a_head_too_large_for_the_rotation_is_refused() -> None:
    x, turn = random(1, 2, 1, 512, dtype=torch.float32), torch.ones(2, 1, 256)
    with pytest.raises(ValueError, match="heads of 512 numbers"):
        RotateNorm.apply(x, turn, turn, 1.0)


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_mlp(dtype: torch.dtype, near: float) -> None:
    inputs = [random(*shape, dtype=dtype, seed=i) for i, shape in enumerate([(2, 9, 16), (64, 16), (16, 64)])]
    compare(Relu2MLP.apply, lambda x, up, down: F.linear(F.linear(x, up).relu().square(), down), inputs, 2 * near)


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
@pytest.mark.parametrize(("T", "window"), [(1, None), (16, None), (37, None), (48, None), (37, 5), (48, 20), (48, 0)])
def test_attention(
    dtype: torch.dtype, near: float, T: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "_BLOCK", 16)
    monkeypatch.setattr(cpu_attention, "_SCORES_BYTES", 2 * 3 * 16 * T * 4)  # shares of two sequences, the last of one
    inputs = [random(5, 3, T, 8, dtype=dtype, seed=i) for i in range(3)]
    mask = sight(T, T, T if window is None else window, torch.device("cpu"))

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)

    compare(lambda q, k, v: CausalAttention.apply(q, k, v, window), plain, inputs, 2 * near)


@pytest.mark.parametrize("modern", [False, True])
def test_a_step_is_the_same_whatever_the_number_of_threads(modern: bool) -> None:
    """Bits of a resumed run do not depend on who shared out the rows."""
    if modern:
        shape, architecture = modern_from_depth(2, vocab_size=300, sequence_len=40, head_dim=16), MODERN
    else:
        shape, architecture = from_depth(2, vocab_size=300, sequence_len=40, head_dim=16), CLASSIC
    model = GPT(shape, architecture, dtype=torch.bfloat16)
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(1))
    before, gradients = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 3):
            torch.set_num_threads(threads)
            model.zero_grad()
            with torch.no_grad():
                model.lm_head.weight.fill_(0.01)
            model(ids, ids).backward()
            gradients.append([p.grad for p in model.parameters()])
    finally:
        torch.set_num_threads(before)
    for once, again in zip(gradients[0], gradients[1], strict=True):
        assert once is not None and again is not None and torch.equal(once, again)
    for once, other in zip(gradients[0], gradients[2], strict=True):
        assert once is not None and other is not None
        assert (once - other).norm() <= 1e-2 * once.norm() + 1e-6

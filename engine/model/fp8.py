"""Matrix products in 8-bit floats on GPUs that have them (Hopper and later): forward in e4m3, gradients in e5m2.

One scale per tensor, taken from its largest value at every use. Weights stay float32 outside the product, evaluations
and checkpoints never see 8 bits: training calls the model through `training_forward`, everything else calls it plainly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.gpt import GPT
from engine.model.layers import Linear

_MULTIPLE, _LEAST = 16, 128  # both sides of a matrix: a hardware multiple, and large enough to be worth it


def unsupported(device: torch.device) -> str:
    """Why this device cannot, or nothing."""
    if device.type != "cuda":
        return f"8-bit products need an NVIDIA GPU since Hopper; this run computes on {device.type}"
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 9):
        return f"{torch.cuda.get_device_name(device)} has no 8-bit products: it takes a GPU since Hopper"
    return "" if hasattr(torch, "_scaled_mm") else "this torch has no 8-bit products"


def suits(layer: Linear) -> bool:
    """Whether a layer's product may be done in 8 bits."""
    return all(n % _MULTIPLE == 0 and n >= _LEAST for n in layer.weight.shape)


def training_forward(model: GPT, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`compute`, which runs the model, with the products of all suitable layers in 8 bits while it does."""
    layers = [m for m in model.modules() if isinstance(m, Linear) and suits(m)]

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        for layer in layers:
            layer.product = fp8_product
        try:
            return compute(*args, **kwargs)
        finally:
            for layer in layers:
                layer.product = None

    return forward


def fp8_product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., n) times weight (m, n) transposed, (..., m) in x's precision.

    Rows are summed over in the weight's gradient, so they too must be a multiple of 16: batches padded to their longest
    row may not be, and are multiplied in x's precision.
    """
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) % _MULTIPLE:
        return F.linear(x, weight.to(x.dtype))
    y: Tensor = _Product.apply(rows, weight)
    return y.view(*x.shape[:-1], weight.shape[0])


def quantized(t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`t` in 8 bits, and the scale () float32 that turns it back: its largest value becomes the format's."""
    largest = t.detach().abs().amax().float().clamp_min(1e-12)
    scale = torch.finfo(dtype).max / largest
    limit = torch.finfo(dtype).max
    return (t.float() * scale).clamp(-limit, limit).to(dtype), scale.reciprocal()


def _mm(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, out: torch.dtype, *, fast: bool) -> Tensor:
    """a (m, k) row-major times b (k, n) column-major. `fast` keeps fewer bits of the running sum."""
    return torch._scaled_mm(a, b, scale_a=scale_a, scale_b=scale_b, out_dtype=out, use_fast_accum=fast)


class _Product(torch.autograd.Function):
    """y = x Wᵀ, dx = dy W, dW = dyᵀ x, each from 8-bit operands; sums are kept in float32 by the hardware."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_scale = quantized(x, torch.float8_e4m3fn)
        w8, w_scale = quantized(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return _mm(x8, w8.t(), x_scale, w_scale, x.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        x_dtype, w_dtype = ctx.dtypes
        dy8, dy_scale = quantized(dy, torch.float8_e5m2)
        dx = _mm(dy8, _columns(w8), dy_scale, w_scale, x_dtype, fast=False)
        dw = _mm(dy8.t().contiguous(), _columns(x8), dy_scale, x_scale, x_dtype, fast=False)
        return dx, dw.to(w_dtype)


def _columns(t: Tensor) -> Tensor:
    """The same matrix laid out by columns, as the second operand must be."""
    return t.t().contiguous().t()

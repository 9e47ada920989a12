"""Chooses what decodes a loaded model, and in which precision: our native step on a CPU, else PyTorch.

"auto" takes the native step wherever it can and says why not where it cannot; asked for by name, what is impossible is
an error. The precision is that of the stored weights. Half of them are read twice as fast once they come from memory;
a small model stays in float32, whose answers are those that were evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.context import StageError
from engine.device import fastest_cpu_dtype
from engine.inference.arena import settle
from engine.inference.cpu_tuning import tune
from engine.inference.native import NotNative, tuned_stepper
from engine.inference.quant import quantize
from engine.inference.stepper import Stepper, TorchStepper
from engine.model.gpt import GPT

_NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALL = 128 << 20  # bytes of float32 weights that some processor's caches may hold


@dataclass(frozen=True)
class Backend:
    """What decodes: `name` is native or torch; `reason` says why it is not native, where that was not asked for."""

    name: str
    stepper: Stepper
    weights: str  # precision of the stored weights
    reason: str = ""


def torch_backend(model: GPT, reason: str = "") -> Backend:
    """PyTorch, with the model as it is."""
    return Backend("torch", TorchStepper(model), str(model.dtype).removeprefix("torch."), reason)


def prepare(model: GPT, dtype: str, backend: str) -> Backend:
    """Put a float32 model on the CPU, just loaded, into the asked precision and choose what decodes it.

    Raises StageError when `backend` or `dtype` ask for what is impossible.
    """
    reason = "asked for" if backend == "torch" else _why_not_native(dtype)
    if not reason:
        try:
            return _native(model, dtype)
        except NotNative as error:
            reason = str(error)
    if backend == "native":
        raise StageError(f"the native backend cannot decode this model: {reason}", "use --backend=auto", "device")
    if dtype == "int8":
        _compute_in(model, fastest_cpu_dtype())
        quantize(model)
        return Backend("torch", TorchStepper(model), "int8", reason)
    chosen = tune(model, _NAMES.get(dtype))
    _compute_in(model, chosen)
    settle(model, lambda name: chosen)
    return torch_backend(model, "" if backend == "torch" else reason)


def _compute_in(model: GPT, dtype: torch.dtype) -> None:
    """Activations in `dtype`, whatever the weights are."""
    model.dtype = dtype
    model.cos, model.sin = model.cos.to(dtype), model.sin.to(dtype)


def _why_not_native(dtype: str) -> str:
    return "the native step has no float16" if dtype == "float16" else ""


def _native(model: GPT, dtype: str) -> Backend:
    if dtype == "auto":
        dtype = "float32" if 4 * model.n_params() <= _SMALL else "bfloat16"
    if dtype != "float32":
        _compute_in(model, fastest_cpu_dtype())  # prompts; the step computes in float32
    if dtype == "int8":
        quantize(model)
    kept = torch.float32 if dtype == "float32" else torch.bfloat16
    settle(model, lambda name: kept)
    return Backend("native", tuned_stepper(model), dtype)

"""Whether a model has room where it would be talked to: what is free there, what it takes. No tensor library.

Says what `--device=auto` would choose and how much memory that has now; the words for a person are others' business.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass

from engine.catalog import ModelInfo
from engine.machine import Gpu, gpus, memory_free, usable_gpus, version_of

_FLOAT, _HALF = 4, 2  # bytes of a weight as it is loaded, and of a GPU's cached key or value
_DRIVER = 500_000_000  # bytes that a process's first use of a CUDA device takes for itself: about what drivers ask for


@dataclass(frozen=True)
class Place:
    """Where a model would compute. `kind` as in --device: cpu, cuda or mps; `free` in bytes, inf where nobody knows."""

    kind: str
    name: str
    free: float


NOWHERE = Place("", "", math.inf)


def place() -> Place:
    """This machine's choice. Asking a driver may take NVIDIA_SMI_WAIT seconds."""
    listed = gpus() if "+cpu" not in (version_of("torch") or "") else []
    if listed and usable_gpus():
        gpu = _first(listed)
        known = gpu.mem_total_gb is not None and gpu.mem_gb is not None
        free = ((gpu.mem_total_gb or 0.0) - (gpu.mem_gb or 0.0)) * 1e9 if known else math.inf
        return Place("cuda", gpu.name, free)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Place("mps", "Apple GPU", float(memory_free()))  # its memory is the machine's
    return Place("cpu", "", float(memory_free()))


def _first(listed: list[Gpu]) -> Gpu:
    """The GPU that is number 0 for CUDA."""
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return next((gpu for gpu in listed if str(gpu.index) == name), listed[0])


def bytes_needed(model: ModelInfo, kind: str) -> int | None:
    """What talking to it takes at most of that place's memory; None where its shape is not known.

    Everywhere float32 weights, as they are loaded, and a full context; on the CPU and where memory is shared also the
    file's own copy while it is read, on a CUDA device what the driver takes.
    """
    if model.n_params is None or model.config is None:
        return None
    c = model.config
    values = 2 * c.n_layer * c.sequence_len * c.n_kv_head * c.head_dim
    if kind == "cuda":
        return model.n_params * _FLOAT + values * _HALF + _DRIVER
    return model.n_params * _FLOAT + model.bytes + values * _FLOAT

"""Where to compute and in which precision, and how fast that could go at best.

One process of one stage. Several processes (torchrun) read RANK, LOCAL_RANK and WORLD_SIZE; absent means one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil
import torch
import torch.nn.functional as F

from engine.context import StageError
from engine.hardware import gpu_peak_flops

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

@dataclass(frozen=True)
class Device:
    """The chosen place: torch device, precision of the products, and the peak that MFU is measured against."""

    device: torch.device
    dtype: torch.dtype
    peak_flops: float  # FLOP/s in `dtype`; 0 when unknown, then no MFU is reported
    name: str

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def choose_device(device_type: str = "auto", dtype: str = "auto") -> Device:
    """Resolve "auto", refuse what this machine has not. Raises StageError naming what would work."""
    kind = _best_kind() if device_type == "auto" else device_type
    if kind == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "device_type=cuda, but this machine has no usable CUDA GPU", "use --device-type=auto", "device"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise StageError("device_type=mps, but this machine has no Apple GPU", "use --device-type=auto", "device")
    if kind == "cpu":
        return _cpu(dtype)
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 where float32 was asked for or is all there is
        name = torch.cuda.get_device_name(device)
        best = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
        return Device(device, _DTYPES.get(dtype, best), gpu_peak_flops(name), name)
    return Device(torch.device("mps"), _DTYPES.get(dtype, torch.float32), 0.0, "Apple GPU")


def _best_kind() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cpu(dtype: str) -> Device:
    cores = (psutil.cpu_count(logical=False) or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(max(1, int(os.environ.get("LLMCONSOLE_THREADS", 0)) or cores))
    chosen = _DTYPES.get(dtype) or fastest_cpu_dtype()
    return Device(torch.device("cpu"), chosen, _gemm_flops(chosen, 2048), f"CPU, {torch.get_num_threads()} threads")


def fastest_cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU multiplies it clearly faster than float32 (AVX512-BF16, AMX), else float32.

    Where the system does not list the instructions it is measured: a CPU without them emulates bfloat16, some 10x
    slower. Looking them up first keeps the choice from changing on a busy machine.
    """
    if cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return torch.bfloat16
    bf16, fp32 = _gemm_flops(torch.bfloat16, 512, 3), _gemm_flops(torch.float32, 512, 3)
    return torch.bfloat16 if bf16 > 1.5 * fp32 else torch.float32


def cpu_flags() -> set[str]:
    """Instruction sets by Linux's names; none where it does not tell."""
    try:
        with open("/proc/cpuinfo") as f:
            lines = [line for line in f if line.startswith("flags")]
    except OSError:
        return set()
    return set(lines[0].split()) if lines else set()


def _gemm_flops(dtype: torch.dtype, n: int, repeats: int = 8) -> float:
    """Best measured rate of an n x n x n product in FLOP/s: the peak that a CPU's MFU is held against."""
    a = torch.randn(n, n).to(dtype)
    best = 0.0
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        F.linear(a, a)
        best = max(best, 2.0 * n**3 / (time.perf_counter() - begin))
    return best

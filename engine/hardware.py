"""Accelerators that a run can be priced for, as facts: peak, memory, and the share of the peak that training reached.

Peaks are dense bfloat16 in FLOP/s from the vendors' data sheets. Utilisation is what nanochat's own runs logged or had
published (d20 on 8xH100: 48 %, on 8xA100: 74 %); a machine whose share nobody has published is not in this table.
Prices move: those here are RunPod's list prices of November 2026, for a first idea; an offer names today's.
"""

from __future__ import annotations

from dataclasses import dataclass

# Dense bf16 peak in FLOP/s by a part of the GPU's name, most specific first (vendors' data sheets, without sparsity).
_GPU_PEAKS = (
    ("h200 nvl", 836e12),
    ("h200", 989e12),
    ("h100 nvl", 835e12),
    ("h100 pcie", 756e12),
    ("h100", 989e12),
    ("gb200", 2.5e15),
    ("b200", 2.25e15),
    ("a100", 312e12),
    ("a40", 149.7e12),
    ("l40s", 362e12),
    ("l4", 121e12),
    ("mi300x", 1.3074e15),
    ("5090", 209.5e12),
    ("4090", 165.2e12),
    ("3090", 71e12),
)


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU. `utilisation` is the MFU to expect of bfloat16 training; `memory_gb` is decimal."""

    title: str
    peak_flops: float
    memory_gb: float
    utilisation: float
    usd_per_hour: float


@dataclass(frozen=True)
class MachineKind:
    """So many GPUs of one kind in one machine, under the name that recipes use."""

    name: str
    gpus: int
    gpu: Accelerator

    @property
    def title(self) -> str:
        return f"{self.gpus}x {self.gpu.title}" if self.gpus > 1 else self.gpu.title

    @property
    def flops_per_s(self) -> float:
        """What training gets out of the whole machine."""
        return self.gpus * self.gpu.peak_flops * self.gpu.utilisation


def gpu_peak_flops(name: str) -> float:
    """Dense bf16 peak of a GPU by its name, 0 when the table does not know it."""
    lowered = name.lower()
    return next((peak for part, peak in _GPU_PEAKS if part in lowered), 0.0)


H100 = Accelerator("H100 SXM", gpu_peak_flops("H100 SXM"), 80, 0.48, 3.99)
A100 = Accelerator("A100 SXM 80 GB", gpu_peak_flops("A100 SXM"), 80, 0.74, 1.79)

KINDS = {kind.name: kind for kind in (
    MachineKind("8xh100", 8, H100), MachineKind("8xa100", 8, A100), MachineKind("1xh100", 1, H100),
    MachineKind("1xa100", 1, A100))}

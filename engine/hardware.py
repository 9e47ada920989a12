"""Accelerators that a run can be priced for, as facts: peak, memory, and the share of the peak that training reached.

Peaks are dense bfloat16 in FLOP/s from the vendors' data sheets. Utilisation is what nanochat's own runs logged or had
published (d20 on 8xH100: 48 %, on 8xA100: 74 %); a machine whose share nobody has published is not in this table.
Prices move: those here are RunPod's list prices of November 2026, for a first idea; an offer names today's.
"""

from __future__ import annotations

from dataclasses import dataclass


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


H100 = Accelerator("H100 SXM", 989e12, 80, 0.48, 3.99)
A100 = Accelerator("A100 SXM 80 GB", 312e12, 80, 0.74, 1.79)

KINDS = {kind.name: kind for kind in (
    MachineKind("8xh100", 8, H100), MachineKind("8xa100", 8, A100), MachineKind("1xh100", 1, H100),
    MachineKind("1xa100", 1, A100))}

"""What a training tells of itself: before its first step, in nanochat's words, and at its end, for the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import psutil
import torch

from engine.device import Device
from engine.train.loop import Schedule, Trainer
from engine.train.workbench import Workbench


def announce(bench: Workbench, schedule: Schedule, **more: Any) -> None:
    """Tell log and events what is about to be trained, in nanochat's words."""
    model, log = bench.model, bench.context.log
    log(f"Vocab size: {model.config.vocab_size:,}")
    log(f"num_layers: {model.config.n_layer}\nmodel_dim: {model.config.n_embd}\nnum_heads: {model.config.n_head}")
    log(f"Architecture: {model.architecture.era}, {bench.world.size} rank{'s' * (bench.world.size > 1)}")
    if model.architecture.modern:
        log("Parameter counts:\n" + "\n".join(f"{k:<24}: {v:,}" for k, v in model.parameter_counts().items()))
    log(f"Number of parameters: {model.n_params():,}\nEstimated FLOPs per token: {model.flops_per_token():e}")
    log(f"Total batch size {schedule.tokens_per_step:,} => gradient accumulation steps: {schedule.accumulation}")
    log(f"Total number of training tokens: {schedule.steps * schedule.tokens_per_step:,}")
    log(f"Device: {bench.device.name}, {bench.device.dtype_name}, peak {bench.device.peak_flops / 1e9:,.0f} GFLOP/s")
    if bench.start:
        log(f"resuming from step {bench.start['step']} of {bench.folder}")
    bench.context.events.emit(
        "config",
        {
            "settings": asdict(bench.config),
            "model": model.config.to_dict(),
            "architecture": model.architecture.era,
            "n_params": model.n_params(),
            "flops_per_token": model.flops_per_token(),
            "total_steps": schedule.steps,
            "tokens_per_step": schedule.tokens_per_step,
            "device": bench.device.name,
            "dtype": bench.device.dtype_name,
            "world_size": bench.world.size,
            "peak_flops": bench.device.peak_flops * bench.world.size,
            "resumed_at": bench.start["step"] if bench.start else None,
            **more,
        },
    )


def training_report(bench: Workbench, trainer: Trainer) -> dict[str, Any]:
    """The numbers of a finished training for the report card."""
    s, p = trainer.schedule, trainer.progress
    counted = max(1, s.steps - 10)
    mean_dt = p.total_training_time / counted if p.total_training_time else 0.0
    rate = s.tokens_per_step / mean_dt if mean_dt else 0.0
    peak = bench.device.peak_flops * bench.world.size
    return {
        "Number of parameters": bench.model.n_params(),
        "FLOPs per token": bench.model.flops_per_token(),
        "Number of iterations": s.steps,
        "Number of training tokens": s.steps * s.tokens_per_step,
        "Final training loss": p.smooth_train_loss / (1 - 0.9 ** max(1, trainer.step)),
        "Minimum validation bpb": p.min_val_bpb,
        "Final validation bpb": trainer.val_bpb,
        "Tokens per second": rate,
        "MFU %": 100 * bench.model.flops_per_token() * rate / peak if peak else None,
        "Total training FLOPs": bench.model.flops_per_token() * s.steps * s.tokens_per_step,
        "Total training time (s)": p.total_training_time,
        "Peak memory (MiB)": peak_memory_mib(bench.device),
        "Device": bench.device.name,
        "Precision": bench.device.dtype_name + (" with fp8 products" if bench.config.fp8 else ""),
        "Ranks": bench.world.size,
    }


def peak_memory_mib(device: Device) -> float:
    """Largest memory use so far: of the GPU where there is one, else of this process."""
    if device.device.type == "cuda":
        return torch.cuda.max_memory_allocated(device.device) / 2**20
    return psutil.Process().memory_info().rss / 2**20

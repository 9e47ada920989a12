"""What base training, mid-training and SFT share: from settings, model and data to a Trainer, and back to disk.

Each stage file says only where its weights come from, what its batches are and how its learning rate runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from engine.context import StageContext, StageError
from engine.device import Device
from engine.evals.bpb import bits_per_byte
from engine.model.gpt import GPT
from engine.optim.setup import LearningRates, setup_optimizers
from engine.settings.training import Training
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import TokenizerError
from engine.train import checkpoint
from engine.train.loop import Batches, Hooks, Progress, Schedule, Trainer, loop_state, progress_from


@dataclass
class Workbench:
    """What a training stage holds before its first step. `start` is the meta of the checkpoint it resumes, if any."""

    config: Training
    context: StageContext
    source: str
    device: Device
    tokenizer: Tokenizer
    model: GPT
    folder: Path
    start: dict[str, Any] | None = None

    @property
    def data_start(self) -> dict[str, Any] | None:
        """Position of the data stream to go on from."""
        return self.start["dataloader_state_dict"] if self.start else None


def load_tokenizer(base: Path) -> Tokenizer:
    """The tokenizer of this base directory. Raises StageError when no tok_train has run."""
    folder = base / "tokenizer"
    if not (folder / "tokenizer.pkl").exists():
        raise StageError(f"no tokenizer in {folder}", "run tok_train first", "tokenizer")
    try:
        return Tokenizer.from_directory(folder)
    except TokenizerError as error:
        raise StageError(f"{folder} cannot be used: {error}", "train the tokenizer again", "tokenizer") from error


def resume_point(config: Training, folder: Path) -> int | None:
    """Step of the newest complete checkpoint when the settings ask to resume and there is one."""
    return checkpoint.newest_valid(folder) if config.resume else None


def check_tokenizer(folder: Path, step: int, tokenizer: Tokenizer) -> None:
    """Refuse to go on with another tokenizer than the checkpoint was trained with."""
    recorded = checkpoint.read_manifest(folder, step).get("tokenizer_sha256")
    if recorded and recorded != tokenizer.sha256():
        raise StageError(
            f"{folder} step {step} was trained with another tokenizer (sha256 {recorded[:12]}, here "
            f"{tokenizer.sha256()[:12]})",
            "use the tokenizer it came with, or train again",
            "tokenizer",
        )


def accumulation_steps(config: Training, world: int = 1) -> int:
    """Forward passes per optimizer step. Raises StageError when the batch sizes do not divide."""
    per_pass = config.device_batch_size * config.max_seq_len * world
    if config.total_batch_size % per_pass:
        raise StageError(
            f"total_batch_size {config.total_batch_size:,} is not a multiple of device_batch_size x max_seq_len "
            f"= {per_pass:,} tokens",
            f"use --total-batch-size={per_pass * max(1, config.total_batch_size // per_pass)}",
            "config",
        )
    return config.total_batch_size // per_pass


def announce(bench: Workbench, schedule: Schedule, **more: Any) -> None:
    """Tell log and events what is about to be trained, in nanochat's words."""
    model, log = bench.model, bench.context.log
    log(f"Vocab size: {model.config.vocab_size:,}")
    log(f"num_layers: {model.config.n_layer}\nmodel_dim: {model.config.n_embd}\nnum_heads: {model.config.n_head}")
    log(f"Number of parameters: {model.n_params():,}\nEstimated FLOPs per token: {model.flops_per_token():e}")
    log(f"Total batch size {schedule.tokens_per_step:,} => gradient accumulation steps: {schedule.accumulation}")
    log(f"Device: {bench.device.name}, {bench.device.dtype_name}, peak {bench.device.peak_flops / 1e9:,.0f} GFLOP/s")
    if bench.start:
        log(f"resuming from step {bench.start['step']} of {bench.folder}")
    bench.context.events.emit(
        "config",
        {
            "settings": asdict(bench.config),
            "model": model.config.to_dict(),
            "n_params": model.n_params(),
            "flops_per_token": model.flops_per_token(),
            "total_steps": schedule.steps,
            "tokens_per_step": schedule.tokens_per_step,
            "device": bench.device.name,
            "dtype": bench.device.dtype_name,
            "peak_flops": bench.device.peak_flops,
            "resumed_at": bench.start["step"] if bench.start else None,
            **more,
        },
    )


def train(
    bench: Workbench,
    batches: Batches,
    schedule: Schedule,
    *,
    lr_frac: float = 1.0,
    validation: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    sample: Callable[[int], object] | None = None,
) -> Trainer:
    """Run the loop to its end and return the finished Trainer. Restores optimizer and progress when resuming."""
    config = bench.config
    rates = LearningRates(config.unembedding_lr * lr_frac, config.embedding_lr * lr_frac, config.matrix_lr * lr_frac)
    optimizers = setup_optimizers(bench.model, rates, config.weight_decay)
    trainer = Trainer(bench.model, optimizers, batches, schedule, Hooks(), bench.device, bench.context)
    if bench.start:
        _restore(trainer, bench)
    trainer.hooks = Hooks(evaluate=_evaluator(bench, validation), sample=sample, save=_saver(bench, trainer))
    trainer.run()
    if trainer.val_bpb is not None:
        checkpoint.record_evaluation(bench.folder, trainer.step, trainer.val_bpb)
    return trainer


def _restore(trainer: Trainer, bench: Workbench) -> None:
    assert bench.start is not None
    trainer.step = trainer.saved_at = bench.start["step"]
    trainer.progress = progress_from(bench.start["loop_state"])
    states = checkpoint.load_tensors(
        bench.folder / f"optim_{trainer.step:06d}_rank{bench.context.rank}.pt", bench.device.device
    )
    try:
        for optimizer, state in zip(trainer.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"the optimizer state of step {trainer.step} does not fit this model: {error}",
            "train without --resume, or with the settings it was saved with",
            "checkpoint",
        ) from error


def _evaluator(bench: Workbench, validation: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> Callable[[int], float]:
    token_bytes = torch.tensor(bench.tokenizer.token_bytes_lengths(), dtype=torch.int64, device=bench.device.device)
    n_batches = max(1, bench.config.eval_tokens // (bench.config.device_batch_size * bench.config.max_seq_len))
    return lambda step: bits_per_byte(bench.model, islice(validation(), n_batches), token_bytes)


def _saver(bench: Workbench, trainer: Trainer) -> Callable[[int, Progress], None]:
    def save(step: int, progress: Progress) -> None:
        meta = {
            "step": step,
            "val_bpb": trainer.val_bpb,
            "model_config": bench.model.config.to_dict(),
            "user_config": asdict(bench.config),
            "device_batch_size": bench.config.device_batch_size,
            "max_seq_len": bench.config.max_seq_len,
            "dataloader_state_dict": trainer.batches.state(),
            "loop_state": loop_state(progress),
        }
        saved = checkpoint.save_checkpoint(
            bench.folder,
            step,
            source=bench.source,
            model=bench.model.state_dict(),
            meta=meta,
            optimizers={bench.context.rank: [o.state_dict() for o in trainer.optimizers]},
            tokenizer_sha256=bench.tokenizer.sha256(),
        )
        bench.context.log(
            f"Saved checkpoint of step {step} to {bench.folder} ({saved.bytes / 1e6:.1f} MB in {saved.seconds:.2f}s)"
        )
        bench.context.events.emit(
            "checkpoint",
            {
                "source": bench.source,
                "tag": bench.folder.name,
                "dir": str(bench.folder),
                "files": list(saved.files),
                "bytes": saved.bytes,
                "manifest": f"manifest_{step:06d}.json",
                "seconds": saved.seconds,
            },
            step=step,
        )

    return save


def training_report(bench: Workbench, trainer: Trainer) -> dict[str, Any]:
    """The numbers of a finished training for the report card."""
    s, p = trainer.schedule, trainer.progress
    counted = max(1, s.steps - 10)
    mean_dt = p.total_training_time / counted if p.total_training_time else 0.0
    rate = s.tokens_per_step / mean_dt if mean_dt else 0.0
    peak = bench.device.peak_flops
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
        "Total training time (s)": p.total_training_time,
        "Peak memory (MiB)": peak_memory_mib(bench.device),
        "Device": bench.device.name,
        "Precision": bench.device.dtype_name,
    }


def peak_memory_mib(device: Device) -> float:
    """Largest memory use so far: of the GPU where there is one, else of this process."""
    if device.device.type == "cuda":
        return torch.cuda.max_memory_allocated(device.device) / 2**20
    return psutil.Process().memory_info().rss / 2**20

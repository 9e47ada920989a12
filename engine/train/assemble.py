"""What base training, mid-training and SFT share: from settings, model and data to a Trainer, and back to disk.

Each stage file says only where its weights come from, what its batches are and how its learning rate runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from engine.config import ConfigError
from engine.context import StageContext, StageError
from engine.device import Device, choose_device
from engine.dist import ALONE, World, joined, world_size
from engine.evals.bpb import bits_per_byte
from engine.model import fp8
from engine.model.gpt import GPT
from engine.optim.setup import LearningRates, setup_optimizers
from engine.settings.training import Training
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import TokenizerError
from engine.train import checkpoint, resume
from engine.train.batch_size import OutOfMemory, accumulation_steps, fitting_batch_size, memory_watched
from engine.train.cpu_memory import keep_freed_memory
from engine.train.loop import Hooks, Progress, Schedule, Trainer, loop_state, progress_from
from engine.train.rank_view import Batches
from engine.train.resume import check_tokenizer

__all__ = ["Workbench", "announce", "batch_sizes", "check_tokenizer", "load_tokenizer", "open_world", "peak_memory_mib",
           "run_with_retry", "train", "training_report"]  # fmt: skip


@dataclass
class Workbench:
    """What a training stage holds before its first step. `start` is the meta of the checkpoint it resumes, if any;
    `parent` the folder and step of the checkpoint it starts from, if any."""

    config: Training
    context: StageContext
    source: str
    device: Device
    tokenizer: Tokenizer
    model: GPT
    folder: Path
    start: dict[str, Any] | None = None
    world: World = field(default_factory=lambda: ALONE)
    parent: tuple[Path, int] | None = None

    @property
    def data_start(self) -> dict[str, Any] | None:
        """Position of the data stream to go on from."""
        packing = getattr(self.config, "packing", None)
        return resume.data_position(self.start, self.world, packing) if self.start else None


@contextmanager
def open_world(config: Training) -> Iterator[tuple[Device, World]]:
    """The device of this rank and the ranks together, all in the precision that rank 0 chose."""
    device = choose_device(config.device_type, config.dtype)
    if device.device.type == "cpu":
        keep_freed_memory()
    with joined(device.device) as world:
        device = replace(device, dtype=world.share(device.dtype))
        if device.dtype == torch.float16:
            raise ConfigError("--dtype=float16: training needs loss scaling in it; use bfloat16 or float32")
        if config.compile and device.device.type == "cpu" and not cpp_compiler():
            raise ConfigError("--compile: on a CPU that needs a C++ compiler (g++ or clang++), and there is none here")
        if config.fp8 and (problem := fp8.unsupported(device.device)):
            raise ConfigError(f"--fp8: {problem}")
        yield device, world


def cpp_compiler() -> str | None:
    """What torch.compile would call on a CPU."""
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def run_with_retry(
    config: Training, context: StageContext, stage: Callable[[Any, StageContext], None]
) -> None:
    """Run a stage; with --oom-retry, again with half as many sequences per pass when memory runs out, from the newest
    checkpoint. Several ranks cannot do that together: the one without memory has left the others."""
    while True:
        try:
            stage(config, context)
            return
        except OutOfMemory as error:
            size = error.device_batch_size
            if not config.oom_retry or size == 1 or world_size() > 1:
                raise
            told = str(error)
        config = replace(config, device_batch_size=size // 2, resume=True)
        context.log(f"{told}; going on with {size // 2}")
        context.events.alert("warning", "memory", told, f"going on with {size // 2} sequences per forward pass")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_tokenizer(base: Path) -> Tokenizer:
    """The tokenizer of this base directory. Raises StageError when no tok_train has run."""
    folder = base / "tokenizer"
    if not (folder / "tokenizer.pkl").exists():
        raise StageError(f"no tokenizer in {folder}", "run tok_train first", "tokenizer")
    try:
        return Tokenizer.from_directory(folder)
    except TokenizerError as error:
        raise StageError(f"{folder} cannot be used: {error}", "train the tokenizer again", "tokenizer") from error


def batch_sizes(bench: Workbench, total_batch_size: int) -> tuple[int, int]:
    """Sequences per forward pass, and forward passes per optimizer step. A resumed run keeps the size it began with,
    where it was found and not asked for."""
    config, T = bench.config, bench.config.max_seq_len
    size = config.device_batch_size
    if size is None and bench.start and bench.start.get("world_size", 1) == bench.world.size:
        size = bench.start.get("device_batch_size")
    if size is None:
        size = fitting_batch_size(
            bench.model, bench.device, bench.world, T, total_batch_size, compiled=bench.config.compile
        )
        bench.context.log(f"device batch size found: {size} sequences of {T} tokens per forward pass")
    return size, accumulation_steps(total_batch_size, size, T, bench.world.size)


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


def train(
    bench: Workbench,
    batches: Batches,
    schedule: Schedule,
    *,
    lr_frac: float = 1.0,
    decay_scale: float = 1.0,
    validation: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    sample: Callable[[int], object] | None = None,
    measures: Sequence[tuple[int, Callable[[int], object]]] = (),
) -> Trainer:
    """Run the loop to its end and return the finished Trainer. Restores optimizer and progress when resuming.

    `lr_frac` scales every learning rate, `decay_scale` the weight decay.
    """
    config = bench.config
    rates = LearningRates(
        (config.unembedding_lr or 0) * lr_frac,
        (config.embedding_lr or 0) * lr_frac,
        (config.matrix_lr or 0) * lr_frac,
        config.scalar_lr * lr_frac,
    )
    compiled = config.compile and bench.device.device.type == "cuda"
    decay = (config.weight_decay or 0) * decay_scale
    optimizers = setup_optimizers(bench.model, rates, decay, world=bench.world, compiled=compiled)
    trainer = Trainer(
        bench.model, optimizers, batches, schedule, Hooks(), bench.device, bench.context, world=bench.world
    )
    if bench.start:
        _restore(trainer, bench)
    elif bench.parent and getattr(config, "load_optimizer", False):
        _warm_start(trainer, bench, bench.parent)
    trainer.compute = _compute(bench)
    save = None if config.dry_run else _saver(bench, trainer)
    trainer.hooks = Hooks(_evaluator(bench, schedule, validation), sample, save, measures)
    with memory_watched(_rows(bench, schedule)):
        trainer.run()
    if save and trainer.val_bpb is not None and bench.world.rank == 0:
        checkpoint.record_evaluation(bench.folder, trainer.step, trainer.val_bpb)
    return trainer


def _compute(bench: Workbench) -> Callable[..., Tensor]:
    """The model as training runs it: in 8 bits and compiled where that was asked for."""
    model = bench.model
    padded = bool(getattr(bench.config, "target_examples_per_step", None))  # every batch then has its own width
    compute: Callable[..., Tensor] = torch.compile(model, dynamic=padded) if bench.config.compile else model
    return fp8.training_forward(model, compute) if bench.config.fp8 else compute


def _rows(bench: Workbench, schedule: Schedule) -> int:
    per_pass = schedule.tokens_per_step // (schedule.accumulation * bench.world.size)
    return max(1, per_pass // bench.config.max_seq_len)


def _restore(trainer: Trainer, bench: Workbench) -> None:
    assert bench.start is not None
    trainer.step = trainer.saved_at = bench.start["step"]
    trainer.progress = progress_from(bench.start.get("loop_state") or {})
    ranks = resume.load_optimizers(trainer.optimizers, bench.folder, trainer.step, bench.device, bench.world)
    if ranks != bench.world.size:
        bench.context.log(
            f"step {trainer.step} was saved by {ranks} ranks, here are {bench.world.size}: the optimizer state was "
            "divided anew, and the text goes on at the next row group that no rank has begun"
        )


def _warm_start(trainer: Trainer, bench: Workbench, parent: tuple[Path, int]) -> None:
    """Momenta of the checkpoint that this stage starts from, where it has any; learning rates stay this stage's."""
    folder, step = parent
    if not list(folder.glob(f"optim_{step:06d}*.pt")):
        bench.context.log(f"{folder} step {step} has no optimizer state: the momenta start at zero")
        return
    resume.load_optimizers(trainer.optimizers, folder, step, bench.device, bench.world)


def _evaluator(
    bench: Workbench, schedule: Schedule, validation: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> Callable[[int], float]:
    token_bytes = torch.tensor(bench.tokenizer.token_bytes_lengths(), dtype=torch.int64, device=bench.device.device)
    tokens_per_pass = schedule.tokens_per_step // schedule.accumulation  # of all ranks together
    told = getattr(bench.config, "eval_steps", None)
    n_batches = told or max(1, bench.config.eval_tokens // tokens_per_pass)
    return lambda step: bits_per_byte(bench.model, islice(validation(), n_batches), token_bytes, world=bench.world)


def _saver(bench: Workbench, trainer: Trainer) -> Callable[[int, Progress], None]:
    def save(step: int, progress: Progress) -> None:
        states = bench.world.gather(trainer.batches.state())
        meta = {
            "step": step,
            "val_bpb": trainer.val_bpb,
            "model_config": bench.model.config.to_dict(),
            "architecture": {"era": bench.model.architecture.era},
            "user_config": asdict(bench.config),
            "device_batch_size": _rows(bench, trainer.schedule),
            "max_seq_len": bench.config.max_seq_len,
            "total_batch_size": trainer.schedule.tokens_per_step,
            "dataloader_state_dict": states[0],
            **({"dataloader_states": states} if bench.world.size > 1 else {}),
            "loop_state": loop_state(progress),
            "world_size": bench.world.size,
            "dtype": bench.device.dtype_name,
        }
        saved = checkpoint.save_checkpoint(
            bench.folder,
            step,
            source=bench.source,
            model=bench.model.state_dict(),
            meta=meta,
            optimizers={bench.world.rank: _for_file([o.state_dict() for o in trainer.optimizers])},
            tokenizer_sha256=bench.tokenizer.sha256(),
            world=bench.world,
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


def _for_file(states: list[Any]) -> Any:
    """As nanochat of the era writes it: a list of two state dicts, or the one of its later optimizer."""
    return states[0] if len(states) == 1 else states


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

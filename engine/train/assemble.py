"""What base training, mid-training and SFT share: from a workbench, batches and a schedule to a finished Trainer.

Each stage file says only where its weights come from, what its batches are and how its learning rate runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from engine.evals.bpb import bits_per_byte
from engine.model import fp8
from engine.optim.setup import LearningRates, setup_optimizers
from engine.train import checkpoint, saving
from engine.train.batch_size import accumulation_steps, fitting_batch_size, memory_watched
from engine.train.loop import Hooks, Schedule, Trainer
from engine.train.rank_view import Batches
from engine.train.workbench import Workbench


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
        saving.restore(trainer, bench)
    elif bench.parent and getattr(config, "load_optimizer", False):
        saving.warm_start(trainer, bench, bench.parent)
    trainer.compute = _compute(bench)
    save = None if config.dry_run else saving.saver(bench, trainer)
    trainer.hooks = Hooks(_evaluator(bench, schedule, validation), sample, save, measures)
    with memory_watched(bench.rows(schedule)):
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


def _evaluator(
    bench: Workbench, schedule: Schedule, validation: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> Callable[[int], float]:
    token_bytes = torch.tensor(bench.tokenizer.token_bytes_lengths(), dtype=torch.int64, device=bench.device.device)
    tokens_per_pass = schedule.tokens_per_step // schedule.accumulation  # of all ranks together
    told = getattr(bench.config, "eval_steps", None)
    n_batches = told or max(1, bench.config.eval_tokens // tokens_per_pass)
    return lambda step: bits_per_byte(bench.model, islice(validation(), n_batches), token_bytes, world=bench.world)

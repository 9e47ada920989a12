"""Base training: a new model on raw text, each document behind a <|bos|>."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from engine.catalog import DIRECTORIES
from engine.context import StageContext, StageError
from engine.data.loader import TextBatches
from engine.data.shards import train_files, val_file
from engine.data.text_packing import STREAM
from engine.device import Device
from engine.dist import World
from engine.inference.samples import print_samples
from engine.model.config import Architecture, GPTConfig
from engine.model.counts import padded_rows
from engine.model.gpt import GPT
from engine.settings.training import BaseTrain, resolved
from engine.tokenizer.bpe import Tokenizer
from engine.train import checkpoint
from engine.train.account import announce, training_report
from engine.train.assemble import batch_sizes, train
from engine.train.batch_size import run_with_retry
from engine.train.core_metric import core_hook
from engine.train.loop import Schedule
from engine.train.plan import base_horizon, base_shape
from engine.train.rank_view import RankView
from engine.train.resume import as_before, check_tokenizer, resume_point
from engine.train.schedule import Horizon, cosine_to_zero, modern_momentum, muon_momentum, ramp
from engine.train.workbench import Workbench, load_tokenizer, open_world


def run(config: BaseTrain, context: StageContext) -> None:
    """Train from random weights, or resume; leaves base_checkpoints/<tag>."""
    run_with_retry(resolved(config), context, _run)


def _run(config: BaseTrain, context: StageContext) -> None:
    with open_world(config) as (device, world):
        bench = _set_up(config, context, device, world)
        horizon = _horizon(config, bench.model)
        rows, accumulation = batch_sizes(bench, horizon.tokens_per_step)
        schedule = _schedule(config, horizon, accumulation, bench.model.architecture)
        announce(bench, schedule, tokens_params_ratio=horizon.tokens / horizon.counted_params)
        if bench.model.architecture.modern:
            context.log(f"Scaling LRs by {horizon.lr_scale:.4f} and weight decay by {horizon.decay_scale:.6f}")
        trainer = train(
            bench,
            _text(bench, rows, config.packing or STREAM),
            schedule,
            lr_frac=horizon.lr_scale,
            decay_scale=horizon.decay_scale,
            validation=_validation(bench, rows, config.packing or STREAM),
            sample=_sampler(bench),
            measures=_core(bench, config),
        )
        if not config.dry_run:
            context.report("Base model training", training_report(bench, trainer))


def _text(bench: Workbench, rows: int, packing: str) -> TextBatches:
    return TextBatches(
        train_files(bench.context.base_dir),
        bench.tokenizer,
        rows,
        bench.config.max_seq_len,
        rank=bench.world.rank,
        world=bench.world.size,
        start=bench.data_start,
        device=bench.device.device,
        packing=packing,
    )


def _validation(bench: Workbench, rows: int, packing: str) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """The same tokens whatever the number of ranks: the shard may have fewer row groups than there are ranks."""
    files, T = [val_file(bench.context.base_dir)], bench.config.max_seq_len

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        text = TextBatches(files, bench.tokenizer, rows, T, device=bench.device.device, packing=packing)
        return iter(RankView(text, bench.world))

    return batches


def _core(bench: Workbench, config: BaseTrain) -> list[tuple[int, Callable[[int], object]]]:
    every = config.core_metric_every
    return [(every, core_hook(bench, config.core_metric_max_per_task))] if every else []


def _sampler(bench: Workbench) -> Callable[[int], object]:
    """Rank 0 writes samples; the others go on and wait for it at the next step."""

    def sample(step: int) -> None:
        if bench.world.rank == 0:
            print_samples(bench.model, bench.tokenizer, bench.context, step)

    return sample


def _set_up(config: BaseTrain, context: StageContext, device: Device, world: World) -> Workbench:
    tokenizer = load_tokenizer(context.base_dir)
    folder = context.base_dir / DIRECTORIES["base"] / (config.model_tag or f"d{config.depth}")
    step = resume_point(config, folder, world)
    device = as_before(device, config, folder, step)
    if step is not None:
        check_tokenizer(folder, step, tokenizer)
        model, start = checkpoint.load_model(folder, step, device=device.device, dtype=device.dtype, check_hash=False)
        _check_same_shape(config, model, tokenizer)
        return Workbench(config, context, "base", device, tokenizer, model, folder, start, world)
    shape, architecture = _shape(config, tokenizer.get_vocab_size())
    rows = padded_rows(shape.vocab_size) if architecture.modern else None
    model = GPT(shape, architecture, dtype=device.dtype, vocab_rows=rows)
    model.init_weights(torch.Generator().manual_seed(config.seed))
    return Workbench(config, context, "base", device, tokenizer, model.to(device.device), folder, None, world)


def _shape(config: BaseTrain, vocab_size: int) -> tuple[GPTConfig, Architecture]:
    try:
        return base_shape(config, vocab_size)
    except ValueError as error:
        raise StageError(
            f"these settings make no model: {error}",
            "change --depth, --width, --head-dim or --window-pattern",
            "config",
        ) from error


def _check_same_shape(config: BaseTrain, model: GPT, tokenizer: Tokenizer) -> None:
    """Refuse to resume a model of another shape than the settings say: its file would be overwritten by another."""
    shape, architecture = _shape(config, tokenizer.get_vocab_size())
    found = model.config
    if model.architecture.modern != architecture.modern:
        kind = "modern" if model.architecture.modern else "classic"
        advice = f"use --architecture={kind} or another --model-tag"
        raise StageError(f"the checkpoint is a {kind} model", advice, "config")
    if replace(found, window_pattern=shape.window_pattern) != shape:
        raise StageError(
            f"the checkpoint is a model of {found.to_dict()}, these settings make one of {shape.to_dict()}",
            "use the settings it was started with, or another --model-tag",
            "config",
        )


def _horizon(config: BaseTrain, model: GPT) -> Horizon:
    try:
        return base_horizon(config, model.config, model.architecture)
    except (ValueError, ZeroDivisionError) as error:
        raise StageError(str(error), "change the horizon or the batch size", "config") from error


def _schedule(config: BaseTrain, horizon: Horizon, accumulation: int, architecture: Architecture) -> Schedule:
    steps = horizon.steps
    warmup = round(config.warmup_ratio * steps) if config.warmup_steps is None else config.warmup_steps
    warmdown = round((config.warmdown_ratio or 0.0) * steps)
    final = config.final_lr_frac or 0.0
    common = Schedule(
        steps=steps,
        tokens_per_step=horizon.tokens_per_step,
        accumulation=accumulation,
        lr_multiplier=lambda step: ramp(step, steps, warmup, warmdown, final),
        momentum=muon_momentum,
        grad_clip=config.grad_clip or 0.0,
        eval_every=config.eval_every,
        save_every=config.save_every,
        sample_every=config.sample_every,
    )
    if not architecture.modern:
        return common
    return replace(
        common,
        momentum=lambda step: modern_momentum(step, steps, warmdown),
        decay_multiplier=lambda step: cosine_to_zero(step, steps),
    )

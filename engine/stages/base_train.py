"""Base training: a new model on raw text, each document behind a <|bos|>."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.catalog import DIRECTORIES
from engine.context import StageContext, StageError
from engine.data.loader import TextBatches
from engine.data.shards import train_files, val_file
from engine.device import choose_device
from engine.inference.samples import print_samples
from engine.model.config import from_depth
from engine.model.gpt import GPT
from engine.settings.training import BaseTrain
from engine.train import checkpoint
from engine.train.assemble import (
    Workbench,
    accumulation_steps,
    announce,
    check_tokenizer,
    load_tokenizer,
    resume_point,
    train,
    training_report,
)
from engine.train.loop import Schedule
from engine.train.schedule import horizon, muon_momentum, warm_hold_down


def run(config: BaseTrain, context: StageContext) -> None:
    """Train from random weights, or resume; leaves base_checkpoints/<tag>."""
    bench = _set_up(config, context)
    schedule = _schedule(config, bench.model)
    announce(bench, schedule, tokens_params_ratio=schedule.steps * schedule.tokens_per_step / bench.model.n_params())
    B, T, device = config.device_batch_size, config.max_seq_len, bench.device.device

    def validation() -> Iterator[tuple[Tensor, Tensor]]:
        return iter(TextBatches([val_file(context.base_dir)], bench.tokenizer, B, T, device=device))

    batches = TextBatches(train_files(context.base_dir), bench.tokenizer, B, T, start=bench.data_start, device=device)
    trainer = train(
        bench,
        batches,
        schedule,
        validation=validation,
        sample=lambda step: print_samples(bench.model, bench.tokenizer, context, step),
    )
    context.report("Base model training", training_report(bench, trainer))


def _set_up(config: BaseTrain, context: StageContext) -> Workbench:
    tokenizer = load_tokenizer(context.base_dir)
    device = choose_device(config.device_type, config.dtype)
    folder = context.base_dir / DIRECTORIES["base"] / (config.model_tag or f"d{config.depth}")
    step = resume_point(config, folder)
    if step is not None:
        check_tokenizer(folder, step, tokenizer)
        model, start = checkpoint.load_model(folder, step, device=device.device, dtype=device.dtype, check_hash=False)
        return Workbench(config, context, "base", device, tokenizer, model, folder, start)
    try:
        shape = from_depth(
            config.depth,
            vocab_size=tokenizer.get_vocab_size(),
            sequence_len=config.max_seq_len,
            width=config.width,
            head_dim=config.head_dim,
        )
    except ValueError as error:
        raise StageError(
            f"these settings make no model: {error}", "change --depth, --width or --head-dim", "config"
        ) from error
    model = GPT(shape, dtype=device.dtype)
    model.init_weights(torch.Generator().manual_seed(config.seed))
    return Workbench(config, context, "base", device, tokenizer, model.to(device.device), folder)


def _schedule(config: BaseTrain, model: GPT) -> Schedule:
    try:
        steps = horizon(
            config.num_iterations,
            config.target_flops,
            config.target_param_data_ratio,
            flops_per_token=model.flops_per_token(),
            tokens_per_step=config.total_batch_size,
            n_params=model.n_params(),
        )
    except ValueError as error:
        raise StageError(str(error), "change the horizon or the batch size", "config") from error
    return Schedule(
        steps=steps,
        tokens_per_step=config.total_batch_size,
        accumulation=accumulation_steps(config),
        lr_multiplier=lambda step: warm_hold_down(
            step, steps, config.warmup_ratio, config.warmdown_ratio, config.final_lr_frac
        ),
        momentum=muon_momentum,
        grad_clip=config.grad_clip,
        eval_every=config.eval_every,
        save_every=config.save_every,
        sample_every=config.sample_every,
    )

"""Base evaluation: bits per byte on what was trained on and on what was not, and what the model writes by itself."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from engine.context import StageContext
from engine.data.loader import TextBatches
from engine.data.shards import train_files, val_file
from engine.device import choose_device
from engine.evals.bpb import bits_per_byte
from engine.inference.samples import print_samples
from engine.settings.evaluation import BaseEval
from engine.train.assemble import check_tokenizer, load_tokenizer
from engine.train.checkpoint import load_model, resolve


def run(config: BaseEval, context: StageContext) -> None:
    """Evaluate the newest base model; reports train and val bpb and prints samples."""
    tokenizer = load_tokenizer(context.base_dir)
    device = choose_device(config.device_type, config.dtype)
    folder, step = resolve(context.base_dir, "base", config.model_tag, config.step)
    check_tokenizer(folder, step, tokenizer)
    model, _ = load_model(folder, step, device=device.device, dtype=device.dtype)
    token_bytes = torch.tensor(tokenizer.token_bytes_lengths(), device=device.device)
    B, T = config.device_batch_size, model.config.sequence_len
    n_batches = max(1, config.split_tokens // (B * T))

    def measure(files: list[Path]) -> float:
        batches = TextBatches(files, tokenizer, B, T, device=device.device)
        return bits_per_byte(model, islice(batches, n_batches), token_bytes)

    splits = {"train": train_files(context.base_dir), "val": [val_file(context.base_dir)]}
    results = {}
    for done, (split, files) in enumerate(splits.items(), start=1):
        results[f"{split}_bpb"] = measure(files)
        context.log(f"{split} bpb: {results[f'{split}_bpb']:.4f}")
        context.progress(done, len(splits), "splits")
        context.checkpoint_stop()
    context.events.evaluation(step, **results)
    samples = print_samples(model, tokenizer, context, step)
    context.report("Base model evaluation", {"train bpb": results["train_bpb"], "val bpb": results["val_bpb"]}, samples)

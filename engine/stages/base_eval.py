"""Base evaluation: bits per byte on what was trained on and on what was not, the CORE metric, and what the model writes
by itself. Any other model of the transformers library may be measured by CORE for comparison.
"""

from __future__ import annotations

import csv
import io
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from engine.config import ConfigError, nearest
from engine.context import StageContext, Stopped
from engine.data.loader import TextBatches
from engine.data.shards import train_files, val_file
from engine.device import Device, choose_device
from engine.dist import World, joined
from engine.evals.bpb import bits_per_byte
from engine.evals.core import Scorer, TaskScore, evaluate_core
from engine.evals.eval_bundle import find_bundle
from engine.evals.icl import Encoder
from engine.inference.samples import print_samples
from engine.model.gpt import GPT
from engine.rundir import write_atomic
from engine.settings.evaluation import BaseEval
from engine.tokenizer.bpe import Tokenizer
from engine.train.checkpoint import load_model, resolve
from engine.train.resume import check_tokenizer
from engine.train.workbench import load_tokenizer

PARTS = ("bpb", "sample", "core")  # in this order: the cheap ones are told before CORE may fail for want of its data


def run(config: BaseEval, context: StageContext) -> None:
    """Evaluate the newest base model, or the transformers model of `hf_path`."""
    parts = chosen(config.eval)
    device = choose_device(config.device_type, config.dtype)
    with joined(device.device) as world:
        if config.hf_path:
            _foreign(config, context, device, world)
        else:
            _ours(config, context, device, world, parts)


def chosen(names: str) -> list[str]:
    """The parts to do, in our order. Raises ConfigError with the nearest name."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in PARTS:
            raise ConfigError(f"--eval={names}: {name!r} is no part of the evaluation{nearest(name, list(PARTS))}")
    if not asked:
        raise ConfigError(f"--eval is empty: name some of {', '.join(PARTS)}")
    return [part for part in PARTS if part in asked]


def _ours(config: BaseEval, context: StageContext, device: Device, world: World, parts: list[str]) -> None:
    tokenizer = load_tokenizer(context.base_dir)
    folder, step = resolve(context.base_dir, "base", config.model_tag, config.step)
    check_tokenizer(folder, step, tokenizer)
    model, _ = load_model(folder, step, device=device.device, dtype=device.dtype)
    facts: dict[str, Any] = {}
    if "bpb" in parts:
        facts |= _bpb(config, context, model, tokenizer, world, step)
    sampling = "sample" in parts and world.rank == 0
    samples = print_samples(model, tokenizer, context, step) if sampling else {}
    context.report("Base model evaluation", facts, samples)
    if "core" in parts:
        found = core(config, context, model, tokenizer, device, world, step, f"base_model_{step:06d}")
        context.report("Base model evaluation", {"CORE metric": found["core_metric"]}, facts, samples,
                       {"CORE tasks, centered": found["centered_results"]})


def _bpb(config: BaseEval, context: StageContext, model: GPT, tokenizer: Tokenizer, world: World,
         step: int) -> dict[str, float]:
    token_bytes = torch.tensor(tokenizer.token_bytes_lengths(), device=model.device)
    B, T = config.device_batch_size, model.config.sequence_len
    n_batches = max(1, config.split_tokens // (B * T * world.size))

    def measure(files: list[Path]) -> float:
        batches = TextBatches(files, tokenizer, B, T, rank=world.rank, world=world.size, device=model.device)
        return bits_per_byte(model, islice(batches, n_batches), token_bytes, world=world)

    splits = {"train": train_files(context.base_dir), "val": [val_file(context.base_dir)]}
    results = {}
    for done, (split, files) in enumerate(splits.items(), start=1):
        results[f"{split}_bpb"] = measure(files)
        context.log(f"{split} bpb: {results[f'{split}_bpb']:.4f}")
        context.progress(done, len(splits), "splits")
        stop_together(context, world)
    context.events.evaluation(step, **results)
    return {"train bpb": results["train_bpb"], "val bpb": results["val_bpb"]}


def stop_together(context: StageContext, world: World) -> None:
    """Raise Stopped on every rank when one of them was asked to stop: none must wait for another that has left."""
    if world.any(context.stop_requested):
        raise Stopped


def core(config: BaseEval, context: StageContext, model: GPT | Scorer, tokenizer: Encoder, device: Device,
         world: World, step: int | None, name: str) -> dict[str, Any]:
    """Measure CORE; a line per task in the log, a CSV file, and the scores as an event."""
    bundle = find_bundle(context.base_dir, config.eval_bundle, context.log)
    begin = time.monotonic()

    def told(score: TaskScore) -> None:
        context.log(f"{score.label}: accuracy {score.accuracy:.4f} | centered {score.centered:.4f} | "
                    f"{score.items} items | {score.seconds:.2f}s")
        stop_together(context, world)

    found = evaluate_core(model, tokenizer, device.device, bundle, config.max_per_task, world=world, on_task=told,
                          progress=lambda label, done, count: context.progress(done, count, f"items of {label}"))
    context.log(f"CORE metric: {found['core_metric']:.4f} in {time.monotonic() - begin:.1f}s")
    if world.rank == 0:
        path = context.base_dir / "base_eval" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _as_csv(found))
    context.events.evaluation(step, core_metric=found["core_metric"],
                              **{f"core/{label}": value for label, value in found["centered_results"].items()})
    return found


def _as_csv(found: dict[str, Any]) -> bytes:
    """nanochat's table: task, accuracy, centered, in padded columns, CORE last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f"{'Task':<35}", f"{'Accuracy':<10}", f"{'Centered':<10}"])
    for label, accuracy in found["results"].items():
        writer.writerow([f"{label:<35}", f"{accuracy:<10.6f}", f"{found['centered_results'][label]:<10.6f}"])
    writer.writerow([f"{'CORE':<35}", f"{'':<10}", f"{found['core_metric']:<10.6f}"])
    return text.getvalue().encode()


def _foreign(config: BaseEval, context: StageContext, device: Device, world: World) -> None:
    from engine.evals.hf_model import describe, load_hf

    assert config.hf_path is not None
    model, tokenizer = load_hf(config.hf_path, device)
    context.log(f"{config.hf_path}: {describe(model)}; only CORE is measured of it")
    name = config.hf_path.strip("/").replace("/", "-")
    found = core(config, context, model, tokenizer, device, world, None, name)
    context.report(f"Core of {name}", {"CORE metric": found["core_metric"],
                                       "CORE tasks, centered": found["centered_results"]})

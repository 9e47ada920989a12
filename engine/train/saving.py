"""A training to disk and back: its checkpoints, and the state of the optimizers that it goes on or starts with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.context import StageContext
from engine.device import Device
from engine.dist import World
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer
from engine.train import checkpoint, resume
from engine.train.loop import Progress, Trainer, loop_state, progress_from
from engine.train.workbench import Workbench


def restore(trainer: Trainer, bench: Workbench) -> None:
    assert bench.start is not None
    trainer.step = trainer.saved_at = bench.start["step"]
    trainer.progress = progress_from(bench.start.get("loop_state") or {})
    ranks = resume.load_optimizers(trainer.optimizers, bench.folder, trainer.step, bench.device, bench.world)
    if ranks != bench.world.size:
        bench.context.log(
            f"step {trainer.step} was saved by {ranks} ranks, here are {bench.world.size}: the optimizer state was "
            "divided anew, and the text goes on at the next row group that no rank has begun"
        )


def warm_start(trainer: Trainer, bench: Workbench, parent: tuple[Path, int]) -> None:
    """Momenta of the checkpoint that this stage starts from, where it has any; learning rates stay this stage's."""
    folder, step = parent
    if not list(folder.glob(f"optim_{step:06d}*.pt")):
        bench.context.log(f"{folder} step {step} has no optimizer state: the momenta start at zero")
        return
    resume.load_optimizers(trainer.optimizers, folder, step, bench.device, bench.world)


def saver(bench: Workbench, trainer: Trainer) -> Callable[[int, Progress], None]:
    def save(step: int, progress: Progress) -> None:
        states = bench.world.gather(trainer.batches.state())
        commit(
            bench,
            step,
            trainer.optimizers,
            val_bpb=trainer.val_bpb,
            device_batch_size=bench.rows(trainer.schedule),
            max_seq_len=bench.config.max_seq_len,
            total_batch_size=trainer.schedule.tokens_per_step,
            dataloader_state_dict=states[0],
            **({"dataloader_states": states} if bench.world.size > 1 else {}),
            loop_state=loop_state(progress),
        )

    return save


class Trained(Protocol):
    """What a checkpoint is made of, beside the optimizers; a Workbench is one."""

    config: Any
    context: StageContext
    source: str
    device: Device
    tokenizer: Tokenizer
    model: GPT
    folder: Path
    world: World


def commit(bench: Trained, step: int, optimizers: Sequence[torch.optim.Optimizer], **more: Any) -> None:
    """Commit a checkpoint of the state after `step` steps, and tell log and events; `more` goes into its meta file."""
    meta = {
        "step": step,
        "model_config": bench.model.config.to_dict(),
        "architecture": {"era": bench.model.architecture.era},
        "user_config": asdict(bench.config),
        "world_size": bench.world.size,
        "dtype": bench.device.dtype_name,
        **more,
    }
    saved = checkpoint.save_checkpoint(
        bench.folder,
        step,
        source=bench.source,
        model=bench.model.state_dict(),
        meta=meta,
        optimizers={bench.world.rank: _for_file([o.state_dict() for o in optimizers])},
        tokenizer_sha256=bench.tokenizer.sha256(),
        world=bench.world,
    )
    bench.context.log(
        f"Saved checkpoint of step {step} to {bench.folder} ({saved.bytes / 1e6:.1f} MB in {saved.seconds:.2f}s)"
    )
    facts = {"source": bench.source, "tag": bench.folder.name, "dir": str(bench.folder), "files": list(saved.files),
             "bytes": saved.bytes, "manifest": f"manifest_{step:06d}.json", "seconds": saved.seconds}  # fmt: skip
    bench.context.events.emit("checkpoint", facts, step=step)


def _for_file(states: list[Any]) -> Any:
    """As nanochat of the era writes it: a list of two state dicts, or the one of its later optimizer."""
    return states[0] if len(states) == 1 else states

"""Where a stage goes on: which checkpoint, with which optimizer state, and where in the data; also one of nanochat's,
and also when the number of ranks has changed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.context import StageError
from engine.data.text_packing import BEST_FIT
from engine.device import Device
from engine.dist import World
from engine.optim.shards import load_shards
from engine.tokenizer.bpe import Tokenizer
from engine.train import checkpoint, manifest
from engine.train.archive import CheckpointError, check_archive


class Resumed(Protocol):
    """The settings of a stage that goes on where it stopped."""

    @property
    def resume(self) -> bool: ...
    @property
    def resume_from_step(self) -> int | None: ...
    @property
    def dtype(self) -> str: ...


def resume_point(config: Resumed, folder: Path, world: World) -> int | None:
    """The step to go on from, the same on all ranks; None to start anew. Raises StageError when a step was asked for
    that is not there or not whole."""
    step: int | None = None
    problem: StageError | None = None
    if world.rank == 0:
        try:
            step = _resume_point(config, folder)
        except StageError as error:
            problem = error
    step, problem = world.share((step, problem))
    if problem is not None:
        raise problem
    return step


def _resume_point(config: Resumed, folder: Path) -> int | None:
    if config.resume_from_step is None:
        return newest_resumable(folder) if config.resume else None
    step = config.resume_from_step
    if step not in checkpoint.list_steps(folder):
        known = ", ".join(map(str, checkpoint.list_steps(folder))) or "none"
        raise CheckpointError(
            f"{folder} has no checkpoint of step {step}", f"steps there: {known}", "checkpoint"
        )
    if manifest.path_of(folder, step).exists():
        checkpoint.verify(folder, step)
    else:
        _check_foreign(folder, step)
    return step


def newest_resumable(folder: Path) -> int | None:
    """The newest checkpoint that is whole: ours by its manifest; in a folder that has none, nanochat's by the checksums
    inside its archives."""
    if (step := checkpoint.newest_valid(folder)) is not None:
        return step
    for step in reversed(checkpoint.list_steps(folder)):
        if manifest.path_of(folder, step).exists():
            continue
        try:
            _check_foreign(folder, step)
        except CheckpointError:
            continue
        return step
    return None


def _check_foreign(folder: Path, step: int) -> None:
    checkpoint.read_meta(folder, step)
    for path in (folder / f"model_{step:06d}.pt", *checkpoint.optimizer_files(folder, step)):
        check_archive(path, contents=True)


def as_before(device: Device, config: Resumed, folder: Path, step: int | None) -> Device:
    """The device with the precision that the resumed run computed in, unless the settings name one."""
    recorded = checkpoint.read_meta(folder, step).get("dtype") if step is not None else None
    if config.dtype != "auto" or recorded not in ("float32", "bfloat16"):
        return device
    return replace(device, dtype=getattr(torch, recorded))


def check_tokenizer(folder: Path, step: int, tokenizer: Tokenizer) -> None:
    """Refuse to go on with another tokenizer than the checkpoint was trained with: another hash or, where none is
    recorded, another size."""
    recorded = checkpoint.read_manifest(folder, step).get("tokenizer_sha256")
    known, here = checkpoint.read_meta(folder, step)["model_config"].get("vocab_size"), tokenizer.get_vocab_size()
    if recorded and recorded != tokenizer.sha256():
        difference = f"sha256 {recorded[:12]}, here {tokenizer.sha256()[:12]}"
    elif known != here:
        difference = f"{known} tokens, here {here}"
    else:
        return
    raise StageError(
        f"{folder} step {step} was trained with another tokenizer ({difference})",
        "use the tokenizer it came with, or train again",
        "tokenizer",
    )


def load_optimizers(
    optimizers: list[torch.optim.Optimizer], folder: Path, step: int, device: Device, world: World
) -> int:
    """Fill the optimizers from a checkpoint, whose number of ranks is returned. Raises StageError naming the file."""
    files = checkpoint.optimizer_files(folder, step)
    try:
        load_shards(
            optimizers, lambda rank: checkpoint.load_tensors(files[rank], device.device), len(files), world
        )
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise StageError(
            f"{files[min(world.rank, len(files) - 1)]} does not fit this model: {error}",
            "train without --resume, or with the settings it was saved with",
            "checkpoint",
        ) from error
    return len(files)


def data_position(meta: dict[str, Any], world: World, packing: str | None) -> dict[str, Any] | None:
    """This rank's place in the data: exact where as many ranks wrote it for the same packing, else the next stretch
    that no rank has begun. `packing` is that of text, None for conversations.

    None where the checkpoint tells nothing (nanochat's conversations): the data begin anew.
    """
    states = meta.get("dataloader_states") or [meta.get("dataloader_state_dict")]
    state = states[world.rank] if len(states) == world.size else states[0]
    if not isinstance(state, dict):
        return None
    if packing is None:
        return dict(state)
    exact = "buffer" in state if packing == BEST_FIT else "offset" in state
    if len(states) == world.size and exact:
        return dict(state)
    next_stripe = (int(state["rg_idx"]) // world.size + 1) * world.size + world.rank
    place = {"pq_idx": int(state["pq_idx"]), "rg_idx": next_stripe, "epoch": int(state.get("epoch", 1))}
    return {**place, "row": 0, "buffer": []} if packing == BEST_FIT else {**place, "offset": 0}

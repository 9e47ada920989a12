"""Training on conversations: what mid-training and SFT share. They differ in which words count and where they start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from engine.catalog import DIRECTORIES
from engine.context import StageContext, StageError
from engine.data.conversations import Conversation, read_conversations
from engine.data.packing import ConversationBatches
from engine.device import choose_device
from engine.settings.training import ChatSft, MidTrain
from engine.tasks import mixture
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_conversation
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
from engine.train.loop import Schedule, Trainer
from engine.train.schedule import muon_momentum, warm_hold_down


def tune(
    config: MidTrain | ChatSft,
    context: StageContext,
    *,
    source: str,
    start_from: str,
    files: tuple[str, str],
    supervise_all: bool,
    title: str,
) -> None:
    """Train on `conversations/<files[0]>` and validate on `<files[1]>`, from `start_from` or resuming."""
    bench = _set_up(config, context, source, start_from)
    training = _read(config, context, files[0], "train")
    validating = _read(config, context, files[1], "val")
    B, T, device = config.device_batch_size, config.max_seq_len, bench.device.device
    schedule = _schedule(config, training, bench.tokenizer)
    announce(bench, schedule, conversations=len(training))

    def packed(conversations: Sequence[Conversation], start: dict[str, object] | None = None) -> ConversationBatches:
        return ConversationBatches(
            len(conversations),
            _renderer(bench.tokenizer, conversations, T + 1),
            B,
            T,
            pad_id=bench.tokenizer.get_bos_token_id(),
            supervise_all=supervise_all,
            seed=config.seed,
            start=start,
            device=device,
        )

    def validation() -> Iterator[tuple[Tensor, Tensor]]:
        return iter(packed(validating))

    trainer: Trainer = train(
        bench, packed(training, bench.data_start), schedule, lr_frac=config.init_lr_frac, validation=validation
    )
    context.report(title, training_report(bench, trainer), {"Conversations": len(training)})


def _read(config: MidTrain | ChatSft, context: StageContext, name: str, split: str) -> Sequence[Conversation]:
    """The conversations of the chosen mixture or, without one, those of the dataset stage's file."""
    conversations: Sequence[Conversation]
    if config.mixture is None:
        path = context.base_dir / "conversations" / name
        conversations, origin = read_conversations(path), str(path)
    else:
        conversations = mixture.build(config.mixture, context.base_dir, split, log=context.log)
        origin = f"the mixture {config.mixture} ({split})"
    if not conversations:
        raise StageError(f"{origin} holds no conversations", "run the dataset stage", "data")
    return conversations


def _renderer(tokenizer: Tokenizer, conversations: Sequence[Conversation], room: int):  # type: ignore[no-untyped-def]
    return lambda i: render_conversation(tokenizer, conversations[i], room)


def _set_up(config: MidTrain | ChatSft, context: StageContext, source: str, start_from: str) -> Workbench:
    tokenizer = load_tokenizer(context.base_dir)
    device = choose_device(config.device_type, config.dtype)
    parent, parent_step = checkpoint.resolve(context.base_dir, start_from, config.model_tag)
    folder = context.base_dir / DIRECTORIES[source] / parent.name
    step = resume_point(config, folder)
    origin, origin_step = (folder, step) if step is not None else (parent, parent_step)
    check_tokenizer(origin, origin_step, tokenizer)
    model, meta = checkpoint.load_model(origin, origin_step, device=device.device, dtype=device.dtype)
    if config.max_seq_len > model.config.sequence_len:
        raise StageError(
            f"max_seq_len {config.max_seq_len} is longer than the model's context of {model.config.sequence_len}",
            f"use --max-seq-len={model.config.sequence_len} or less",
            "config",
        )
    context.log(f"starting from {origin} step {origin_step}")
    return Workbench(config, context, source, device, tokenizer, model, folder, meta if step is not None else None)


def _schedule(config: MidTrain | ChatSft, training: Sequence[Conversation], tokenizer: Tokenizer) -> Schedule:
    steps = config.num_iterations or _steps_for_epochs(config, training, tokenizer)
    return Schedule(
        steps=steps,
        tokens_per_step=config.total_batch_size,
        accumulation=accumulation_steps(config),
        lr_multiplier=lambda step: warm_hold_down(step, steps, 0.0, config.warmdown_ratio),
        momentum=muon_momentum,
        grad_clip=config.grad_clip,
        eval_every=config.eval_every,
        save_every=config.save_every,
    )


def _steps_for_epochs(config: MidTrain | ChatSft, training: Sequence[Conversation], tokenizer: Tokenizer) -> int:
    """Optimizer steps for `num_epochs` passes, from the mean length of up to 1,000 conversations."""
    every = max(1, len(training) // 1000)
    some = training[::every]
    mean = sum(len(render_conversation(tokenizer, c, config.max_seq_len + 1)[0]) for c in some) / len(some)
    return max(1, round(config.num_epochs * len(training) * mean / config.total_batch_size))

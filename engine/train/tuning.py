"""Training on conversations: what mid-training and SFT share. They differ in which words count and where they start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.catalog import DIRECTORIES
from engine.context import StageContext, StageError
from engine.data.conversations import Conversation, read_conversations
from engine.data.packing import ConversationBatches
from engine.device import Device
from engine.dist import World
from engine.settings.training import ChatSft, MidTrain
from engine.tasks import mixture
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_conversation
from engine.train import checkpoint
from engine.train.account import announce, training_report
from engine.train.assemble import batch_sizes, train
from engine.train.batch_size import run_with_retry
from engine.train.chat_metric import chat_measures
from engine.train.loop import Schedule, Trainer
from engine.train.padded import PaddedConversations
from engine.train.rank_view import Batches, RankView
from engine.train.resume import as_before, check_tokenizer, resume_point
from engine.train.schedule import muon_momentum, warm_hold_down
from engine.train.workbench import Workbench, load_tokenizer, open_world


@dataclass(frozen=True)
class Tuning:
    """What tells mid-training from SFT. `files` are the conversations to train and to validate on."""

    source: str
    start_from: str
    files: tuple[str, str]
    supervise_all: bool
    title: str


def tune(config: MidTrain | ChatSft, context: StageContext, kind: Tuning) -> None:
    """Train on the conversations of `kind` and validate on others, from the model it starts from or resuming."""
    run_with_retry(config, context, lambda c, x: _tune(c, x, kind))


def _tune(config: MidTrain | ChatSft, context: StageContext, kind: Tuning) -> None:
    with open_world(config) as (device, world):
        bench = _set_up(config, context, kind, device, world)
        training = _read(config, context, kind.files[0], "train")
        validating = _read(config, context, kind.files[1], "val")
        schedule = _schedule(bench, training)
        announce(bench, schedule, conversations=len(training))
        rows = schedule.tokens_per_step // (schedule.accumulation * world.size * config.max_seq_len)

        def validation() -> Iterator[tuple[Tensor, Tensor]]:
            return iter(_batches(bench, kind, validating, rows, None))

        batches = _batches(bench, kind, training, rows, bench.data_start)
        measures = chat_measures(config, bench) if isinstance(config, ChatSft) else []
        trainer: Trainer = train(bench, batches, schedule, lr_frac=config.init_lr_frac, validation=validation,
                                 measures=measures)  # fmt: skip
        if not config.dry_run:
            context.report(kind.title, training_report(bench, trainer), {"Conversations": len(training)})


def _batches(
    bench: Workbench,
    kind: Tuning,
    conversations: Sequence[Conversation],
    rows: int,
    start: dict[str, object] | None,
) -> Batches:
    """This rank's batches of `rows` rows: packed full, or one conversation each if examples per step are asked for."""
    config, tokenizer, device = bench.config, bench.tokenizer, bench.device.device
    render = _renderer(tokenizer, conversations, config.max_seq_len + 1)
    if getattr(config, "target_examples_per_step", None):
        padded = PaddedConversations(
            len(conversations),
            render,
            rows,
            pad_id=tokenizer.encode_special("<|assistant_end|>"),
            seed=config.seed,
            start=start,
            device=device,
        )
        return RankView(padded, bench.world)
    packed = ConversationBatches(
        len(conversations),
        render,
        rows,
        config.max_seq_len,
        pad_id=tokenizer.get_bos_token_id(),
        supervise_all=kind.supervise_all,
        seed=config.seed,
        start=start,
        device=device,
    )
    return RankView(packed, bench.world)


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


def _set_up(
    config: MidTrain | ChatSft, context: StageContext, kind: Tuning, device: Device, world: World
) -> Workbench:
    tokenizer = load_tokenizer(context.base_dir)
    parent, parent_step = checkpoint.resolve(context.base_dir, kind.start_from, config.model_tag, config.step)
    folder = context.base_dir / DIRECTORIES[kind.source] / parent.name
    step = resume_point(config, folder, world)
    device = as_before(device, config, folder, step)
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
    start = meta if step is not None else None
    return Workbench(
        config, context, kind.source, device, tokenizer, model, folder, start, world, (parent, parent_step)
    )


def _schedule(bench: Workbench, training: Sequence[Conversation]) -> Schedule:
    config = bench.config
    assert isinstance(config, (MidTrain, ChatSft))
    examples = getattr(config, "target_examples_per_step", None)
    total = examples * config.max_seq_len if examples else config.total_batch_size
    if total is None:
        raise StageError("total_batch_size is not given", "use --total-batch-size=524288", "config")
    _, accumulation = batch_sizes(bench, total)
    if config.num_iterations:
        steps = config.num_iterations
    elif examples:
        steps = max(1, len(training) // examples * config.num_epochs)
    else:
        steps = _steps_for_epochs(config, training, bench.tokenizer, total)
    return Schedule(
        steps=steps,
        tokens_per_step=total,
        accumulation=accumulation,
        lr_multiplier=lambda step: warm_hold_down(
            step, steps, config.warmup_ratio, config.warmdown_ratio, config.final_lr_frac
        ),
        momentum=muon_momentum,
        grad_clip=config.grad_clip or 0.0,
        eval_every=config.eval_every,
        save_every=config.save_every,
    )


def _steps_for_epochs(
    config: MidTrain | ChatSft, training: Sequence[Conversation], tokenizer: Tokenizer, tokens_per_step: int
) -> int:
    """Optimizer steps for `num_epochs` passes, from the mean length of up to 1,000 conversations."""
    every = max(1, len(training) // 1000)
    some = training[::every]
    mean = sum(len(render_conversation(tokenizer, c, config.max_seq_len + 1)[0]) for c in some) / len(some)
    return max(1, round(config.num_epochs * len(training) * mean / tokens_per_step))

"""Settings of the stages that train: base_train, mid_train, chat_sft.

Where a default depends on the architecture or on what a stage starts from, it is None here and said in `resolved`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.config import opt
from engine.settings.choices import DEVICES, DTYPES

ARCHITECTURES = ("classic", "modern")
PACKINGS = ("stream", "best_fit")


@dataclass(frozen=True)
class Training:
    """Settings that base training, mid-training and SFT share."""

    run: str | None = opt(None, "name of a Weights & Biases run that gets the curves too; dummy: none of them; none: "
                          "as WANDB_RUN says")
    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision of the matrix products; weights stay float32", choices=DTYPES)
    max_seq_len: int = opt(2048, "context length in tokens", low=8)
    device_batch_size: int | None = opt(
        32, "sequences per forward pass on one device; auto or 0: as many as its memory holds", unset=0, low=1
    )
    total_batch_size: int | None = opt(
        524_288, "tokens per optimizer step, over all devices; auto: the best for the modern horizon", unset=-1, low=8
    )
    num_iterations: int | None = opt(None, "optimizer steps; none: what the data or the horizon says", unset=-1, low=1)
    unembedding_lr: float | None = opt(
        0.004, "AdamW learning rate of lm_head, at 768 channels", low=0
    )
    embedding_lr: float | None = opt(0.2, "AdamW learning rate of the token embedding, at 768 channels", low=0)
    matrix_lr: float | None = opt(0.02, "Muon learning rate of the blocks' matrices", low=0)
    scalar_lr: float = opt(0.5, "learning rate of a modern model's per-layer scalars", low=0)
    weight_decay: float | None = opt(0.0, "weight decay: AdamW's in classic models, Muon's in modern ones", low=0)
    grad_clip: float | None = opt(0.0, "largest gradient norm; 0 switches clipping off", low=0)
    eval_every: int | None = opt(250, "steps between validation losses; none: only at the end", unset=-1, low=1)
    eval_tokens: int = opt(10_485_760, "tokens per validation", low=1)
    save_every: int | None = opt(None, "steps between checkpoints; none: only the last", unset=-1, low=1)
    model_tag: str | None = opt(None, "folder name of the checkpoints; none: d<depth>")
    seed: int = opt(42, "seed of the initial weights and of the data order")
    resume: bool = opt(False, "go on from the newest complete checkpoint of this stage, if there is one")
    resume_from_step: int | None = opt(None, "go on from the checkpoint of this very step", unset=-1, low=0)
    compile: bool = opt(False, "compile the model (torch.compile): minutes at the start, faster steps on a GPU")
    fp8: bool = opt(False, "multiply in 8-bit floats; GPUs since Hopper only")
    dry_run: bool = opt(False, "train and evaluate, but write no checkpoint and no part of the report")
    oom_retry: bool = opt(False, "when memory runs out, go on with half as many sequences per pass")


@dataclass(frozen=True)
class BaseTrain(Training):
    """Pretrain the base model on raw text."""

    architecture: str = opt("classic", "nanochat's first architecture or its present one", choices=ARCHITECTURES)
    depth: int = opt(20, "layers; width is 64 x depth unless set", low=1, high=1000)
    width: int | None = opt(None, "channels of a classic model; none: 64 x depth", low=16)
    aspect_ratio: int = opt(64, "channels per layer of a modern model, rounded up to whole heads", low=1)
    head_dim: int = opt(128, "channels per attention head, about", low=8)
    window_pattern: str = opt("SSSL", "short and long windows of a modern model's layers; the last is always long")
    packing: str | None = opt(
        None, "text as one stream, or whole documents that fit best; none: stream, modern best_fit", choices=PACKINGS
    )
    target_flops: float | None = opt(None, "train until this many FLOPs are spent", unset=-1, low=1)
    target_param_data_ratio: float | None = opt(
        None, "tokens per parameter, when neither steps nor FLOPs are given; none: 20, modern 12 per matrix weight",
        unset=-1, low=0,
    )  # fmt: skip
    total_batch_size: int | None = opt(
        None, "tokens per optimizer step, over all devices; none: 524288, modern: by the horizon", unset=-1, low=8
    )
    unembedding_lr: float | None = opt(
        None, "AdamW learning rate of lm_head, at 768 channels; none: 0.004, modern 0.008", low=0
    )
    embedding_lr: float | None = opt(
        None, "AdamW learning rate of the token embedding, at 768 channels; none: 0.2, modern 0.3", low=0
    )
    weight_decay: float | None = opt(None, "AdamW's, none: 0; in modern models Muon's, none: 0.28", low=0)
    grad_clip: float | None = opt(None, "largest gradient norm, 0: off; none: 1, modern 0", low=0)
    warmup_ratio: float = opt(0.0, "share of the steps over which the learning rate rises", low=0, high=1)
    warmup_steps: int | None = opt(None, "steps over which it rises; none: by warmup_ratio, modern 40", low=0)
    warmdown_ratio: float | None = opt(
        None, "share of the steps over which it falls; none: 0.2, modern 0.65", low=0, high=1
    )
    final_lr_frac: float | None = opt(
        None, "learning rate at the end, as a share of the top; none: 0, modern 0.05", low=0, high=1
    )
    sample_every: int | None = opt(2000, "steps between samples; none: only at the end", unset=-1, low=1)
    core_metric_every: int | None = opt(None, "steps between CORE evaluations; none: never", unset=-1, low=1)
    core_metric_max_per_task: int | None = opt(500, "questions of each CORE task; none: all", unset=-1, low=1)


@dataclass(frozen=True)
class MidTrain(Training):
    """Teach the chat format: conversations as one stream of tokens, loss on all of them."""

    mixture: str | None = opt(
        None, "what to read: nanochat-mid, no-benchmarks, tasks such as SmolTalk:10000+GSM8K*2+identity, or a .jsonl "
        "file; none: the dataset stage's conversations"
    )
    step: int | None = opt(None, "start from this step of the base model; none: the newest", unset=-1, low=0,
                           also="model_step")
    eval_every: int | None = opt(150, "steps between validation losses; none: only at the end", unset=-1, low=1)
    init_lr_frac: float = opt(1.0, "start at this share of the learning rates", low=0, high=1)
    warmup_ratio: float = opt(0.0, "share of the steps over which the learning rate rises", low=0, high=1)
    warmdown_ratio: float = opt(0.2, "share of the steps over which the learning rate falls", low=0, high=1)
    final_lr_frac: float = opt(0.0, "learning rate at the end, as a share of the top", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)
    load_optimizer: bool = opt(False, "start with the momenta of the model it starts from")


@dataclass(frozen=True)
class ChatSft(Training):
    """Fine-tune on conversations; only the assistant's words count in the loss."""

    source: str = opt("mid", "start from this stage's newest checkpoint", choices=("base", "mid"))
    mixture: str | None = opt(
        None, "what to read: nanochat-sft, no-benchmarks, tasks such as SmolTalk:10000+GSM8K*2+identity, or a .jsonl "
        "file; none: the dataset stage's conversations"
    )
    step: int | None = opt(None, "start from this step of the source model; none: the newest", unset=-1, low=0,
                           also="model_step")
    eval_every: int | None = opt(100, "steps between validation losses; none: only at the end", unset=-1, low=1)
    eval_steps: int | None = opt(
        None, "batches per validation on each device; none: as many as eval_tokens come to", unset=-1, low=1
    )
    eval_metrics_every: int | None = opt(
        None, "steps between measurements of accuracy on MMLU and ARC-Easy; none: never", unset=-1, low=1
    )
    eval_metrics_max_problems: int | None = opt(
        1024, "problems of each of the two; none: all", unset=-1, low=1
    )
    chatcore_every: int | None = opt(
        None, "steps between measurements of ChatCORE over its six tasks; none: never", unset=-1, low=1
    )
    chatcore_max_cat: int | None = opt(None, "problems of each multiple-choice task of it; none: all", unset=-1, low=1)
    chatcore_max_sample: int | None = opt(24, "problems of each task of it with written answers; none: all", unset=-1,
                                          low=1)
    init_lr_frac: float = opt(0.02, "start at this share of the learning rates", low=0, high=1)
    warmup_ratio: float = opt(0.0, "share of the steps over which the learning rate rises", low=0, high=1)
    warmdown_ratio: float = opt(1.0, "share of the steps over which the learning rate falls", low=0, high=1)
    final_lr_frac: float = opt(0.0, "learning rate at the end, as a share of the top", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)
    load_optimizer: bool = opt(False, "start with the momenta of the model it starts from")
    target_examples_per_step: int | None = opt(
        None, "conversations per optimizer step, each a padded row of its own; none: rows packed full", unset=-1, low=1
    )


_CLASSIC: dict[str, Any] = {
    "packing": "stream",
    "target_param_data_ratio": 20.0,
    "total_batch_size": 524_288,
    "unembedding_lr": 0.004,
    "embedding_lr": 0.2,
    "matrix_lr": 0.02,
    "weight_decay": 0.0,
    "grad_clip": 1.0,
    "warmdown_ratio": 0.2,
    "final_lr_frac": 0.0,
}
_MODERN: dict[str, Any] = {
    "packing": "best_fit",
    "target_param_data_ratio": 12.0,
    "unembedding_lr": 0.008,
    "embedding_lr": 0.3,
    "matrix_lr": 0.02,
    "weight_decay": 0.28,
    "grad_clip": 0.0,
    "warmup_steps": 40,
    "warmdown_ratio": 0.65,
    "final_lr_frac": 0.05,
}


def resolved(config: BaseTrain) -> BaseTrain:
    """The settings with what the architecture decides filled in, where nothing was said. A modern model's batch size
    stays open: it follows from the horizon."""
    defaults = _MODERN if config.architecture == "modern" else _CLASSIC
    return replace(config, **{name: value for name, value in defaults.items() if getattr(config, name) is None})

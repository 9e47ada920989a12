"""Settings of the stages that train: base_train, mid_train, chat_sft."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt
from engine.settings.choices import DEVICES, DTYPES


@dataclass(frozen=True)
class Training:
    """Settings that base training, mid-training and SFT share."""

    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision of the matrix products; weights stay float32", choices=DTYPES)
    max_seq_len: int = opt(2048, "context length in tokens", low=8)
    device_batch_size: int = opt(32, "sequences per forward pass on one device", low=1)
    total_batch_size: int = opt(524_288, "tokens per optimizer step, over all devices", low=8)
    num_iterations: int | None = opt(None, "optimizer steps; none: what the data or the horizon says", unset=-1, low=1)
    unembedding_lr: float = opt(0.004, "AdamW learning rate of lm_head, at 768 channels", low=0)
    embedding_lr: float = opt(0.2, "AdamW learning rate of the token embedding, at 768 channels", low=0)
    matrix_lr: float = opt(0.02, "Muon learning rate of the blocks' matrices", low=0)
    weight_decay: float = opt(0.0, "AdamW weight decay", low=0)
    grad_clip: float = opt(0.0, "largest gradient norm; 0 switches clipping off", low=0)
    eval_every: int | None = opt(250, "steps between validation losses; none: only at the end", unset=-1, low=1)
    eval_tokens: int = opt(10_485_760, "tokens per validation", low=1)
    save_every: int | None = opt(None, "steps between checkpoints; none: only the last", unset=-1, low=1)
    model_tag: str | None = opt(None, "folder name of the checkpoints; none: d<depth>")
    seed: int = opt(42, "seed of the initial weights and of the data order")
    resume: bool = opt(False, "go on from the newest complete checkpoint of this stage, if there is one")


@dataclass(frozen=True)
class BaseTrain(Training):
    """Pretrain the base model on raw text."""

    depth: int = opt(20, "layers; width is 64 x depth unless set", low=1)
    width: int | None = opt(None, "channels; none: 64 x depth", low=16)
    head_dim: int = opt(128, "channels per attention head, about", low=8)
    target_flops: float | None = opt(None, "train until this many FLOPs are spent", unset=-1, low=1)
    target_param_data_ratio: float | None = opt(
        20.0, "tokens per parameter, when neither steps nor FLOPs are given", unset=-1, low=0
    )
    grad_clip: float = opt(1.0, "largest gradient norm; 0 switches clipping off", low=0)
    warmup_ratio: float = opt(0.0, "share of the steps over which the learning rate rises", low=0, high=1)
    warmdown_ratio: float = opt(0.2, "share of the steps over which it falls", low=0, high=1)
    final_lr_frac: float = opt(0.0, "learning rate at the end, as a share of the top", low=0, high=1)
    sample_every: int | None = opt(2000, "steps between samples; none: only at the end", unset=-1, low=1)


@dataclass(frozen=True)
class MidTrain(Training):
    """Teach the chat format: conversations as one stream of tokens, loss on all of them."""

    mixture: str | None = opt(
        None, "what to read: nanochat-mid, no-benchmarks, tasks such as SmolTalk:10000+GSM8K*2+identity, or a .jsonl "
        "file; none: the dataset stage's conversations"
    )
    init_lr_frac: float = opt(1.0, "start at this share of the learning rates", low=0, high=1)
    warmdown_ratio: float = opt(0.2, "share of the steps over which the learning rate falls to 0", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)


@dataclass(frozen=True)
class ChatSft(Training):
    """Fine-tune on conversations; only the assistant's words count in the loss."""

    source: str = opt("mid", "start from this stage's newest checkpoint", choices=("base", "mid"))
    mixture: str | None = opt(
        None, "what to read: nanochat-sft, no-benchmarks, tasks such as SmolTalk:10000+GSM8K*2+identity, or a .jsonl "
        "file; none: the dataset stage's conversations"
    )
    init_lr_frac: float = opt(0.02, "start at this share of the learning rates", low=0, high=1)
    warmdown_ratio: float = opt(1.0, "share of the steps over which the learning rate falls to 0", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)

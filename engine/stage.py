"""The stage table: every step of the pipeline with its typed settings, as data that costs nothing to import.

Names, flags and defaults are nanochat's (seed era), so its recipes read the same here. The code of a stage is named by
a dotted string and imported only inside the stage's own process.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from engine.config import ConfigError, nearest, opt
from engine.context import StageFunction

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SOURCES = ("base", "mid", "sft", "rl")


@dataclass(frozen=True)
class Dataset:
    """Make or fetch the text and the conversations that the other stages read."""

    source: str = opt("tiny_world", "which data: the built-in little world", choices=("tiny_world",))
    seed: int = opt(42, "seed of the generator; the same seed gives the same bytes")
    documents: int = opt(28_000, "stories and texts for base training", low=2048)
    conversations: int = opt(32_000, "conversations for mid-training and SFT together", low=400)
    questions: int = opt(400, "held-out questions for chat_eval", low=20)
    python_share: float = opt(0.05, "share of the text taken from Python's own standard library", low=0, high=1)


@dataclass(frozen=True)
class TokTrain:
    """Train the BPE tokenizer on the training shards."""

    max_chars: int = opt(10_000_000_000, "stop reading after this many characters", low=1)
    doc_cap: int = opt(10_000, "cut each document to this many characters", low=1)
    vocab_size: int = opt(65_536, "tokens in all, the nine special ones included", low=256 + 9)
    trainer: str = opt("rustbpe", "who learns the merges: ours, or the slower one of Hugging Face",
                       choices=("rustbpe", "huggingface"))
    threads: int | None = opt(None, "threads that split and count text; none: all cores", unset=-1, low=1)


@dataclass(frozen=True)
class TokEval:
    """Compare the tokenizer's compression with GPT-2's and GPT-4's, by kind of text."""


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
class BaseEval:
    """Bits per byte on what was trained on and what was not, and a few samples."""

    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision", choices=DTYPES)
    device_batch_size: int = opt(32, "sequences per forward pass", low=1)
    split_tokens: int = opt(10_485_760, "tokens of each split to measure", low=1)
    model_tag: str | None = opt(None, "which base model; none: the largest")
    step: int | None = opt(None, "which checkpoint; none: the newest", unset=-1, low=0)


@dataclass(frozen=True)
class MidTrain(Training):
    """Teach the chat format: conversations as one stream of tokens, loss on all of them."""

    init_lr_frac: float = opt(1.0, "start at this share of the learning rates", low=0, high=1)
    warmdown_ratio: float = opt(0.2, "share of the steps over which the learning rate falls to 0", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)


@dataclass(frozen=True)
class ChatSft(Training):
    """Fine-tune on conversations; only the assistant's words count in the loss."""

    source: str = opt("mid", "start from this stage's newest checkpoint", choices=("base", "mid"))
    init_lr_frac: float = opt(0.02, "start at this share of the learning rates", low=0, high=1)
    warmdown_ratio: float = opt(1.0, "share of the steps over which the learning rate falls to 0", low=0, high=1)
    num_epochs: int = opt(1, "passes over the conversations, unless num_iterations says otherwise", low=1)


@dataclass(frozen=True)
class ChatEval:
    """Ask held-out questions and mark the answers."""

    source: str = opt("sft", "which stage's model", choices=SOURCES)
    task_name: str = opt("all", "tasks to run, joined by |")
    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision", choices=DTYPES)
    temperature: float = opt(0.0, "0 takes the likeliest token", low=0)
    top_k: int = opt(50, "sample among this many tokens", low=1)
    max_new_tokens: int = opt(512, "longest answer in tokens", low=1)
    batch_size: int = opt(64, "questions answered side by side", low=1)
    max_problems: int | None = opt(None, "at most this many questions", unset=-1, low=1)
    model_tag: str | None = opt(None, "which model; none: the largest")
    step: int | None = opt(None, "which checkpoint; none: the newest", unset=-1, low=0)


@dataclass(frozen=True)
class Report:
    """Put what every stage measured on one page: report.md and report.json."""


@dataclass(frozen=True)
class StageSpec:
    """One row of the table. `entry` is 'module:function'; the function is called with (config, context)."""

    name: str
    title: str
    config: type
    entry: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    resumable: bool = False  # takes --resume
    parallel: bool = False  # runs under torchrun when there are several GPUs

    @property
    def summary(self) -> str:
        return (self.config.__doc__ or "").strip().splitlines()[0]

    def load(self) -> StageFunction:
        module, _, function = self.entry.partition(":")
        return getattr(importlib.import_module(module), function)


_TABLE = (
    StageSpec("dataset", "Data", Dataset, "engine.stages.dataset:run", (), ("base_data/", "conversations/")),
    StageSpec("tok_train", "Tokenizer", TokTrain, "engine.stages.tok_train:run", ("base_data/",), ("tokenizer/",)),
    StageSpec("tok_eval", "Tokenizer eval", TokEval, "engine.stages.tok_eval:run", ("tokenizer/", "base_data/"), ()),
    StageSpec(
        "base_train",
        "Base",
        BaseTrain,
        "engine.stages.base_train:run",
        ("tokenizer/", "base_data/"),
        ("base_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec("base_eval", "Base eval", BaseEval, "engine.stages.base_eval:run", ("base_checkpoints/",), ()),
    StageSpec(
        "mid_train",
        "Mid",
        MidTrain,
        "engine.stages.mid_train:run",
        ("base_checkpoints/", "conversations/"),
        ("mid_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec(
        "chat_sft",
        "SFT",
        ChatSft,
        "engine.stages.chat_sft:run",
        ("mid_checkpoints/", "conversations/"),
        ("chatsft_checkpoints/",),
        resumable=True,
        parallel=True,
    ),
    StageSpec(
        "chat_eval",
        "Chat eval",
        ChatEval,
        "engine.stages.chat_eval:run",
        ("chatsft_checkpoints/", "conversations/"),
        (),
    ),
    StageSpec("report", "Report", Report, "engine.stages.report:run", ("report/",), ("report/report.md",)),
)
STAGES: dict[str, StageSpec] = {spec.name: spec for spec in _TABLE}


def find(name: str) -> StageSpec:
    """The stage called `name`. Raises ConfigError with the nearest name."""
    key = name.replace("-", "_")
    if key not in STAGES:
        raise ConfigError(f"unknown stage {name!r}{nearest(key, list(STAGES))}")
    return STAGES[key]

"""Settings of the stages that measure: base_eval, chat_eval, report."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt
from engine.settings.choices import DEVICES, DTYPES, SOURCES


@dataclass(frozen=True)
class BaseEval:
    """Bits per byte on what was trained on and what was not, the CORE metric over 22 tasks, and a few samples."""

    eval: str = opt("core,bpb,sample", "what to do, joined by commas: core, bpb, sample")
    hf_path: str | None = opt(None, "measure CORE of this transformers model instead (Hub name or folder)")
    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision", choices=DTYPES)
    device_batch_size: int = opt(32, "sequences per forward pass", low=1)
    split_tokens: int = opt(10_485_760, "tokens of each split to measure", low=1)
    max_per_task: int | None = opt(None, "at most this many items of each CORE task; none: all", unset=-1, low=1)
    eval_bundle: str | None = opt(None, "folder of the eval bundle; none: <base>/eval_bundle, fetched when missing")
    model_tag: str | None = opt(None, "which base model; none: the largest")
    step: int | None = opt(None, "which checkpoint; none: the newest", unset=-1, low=0, also="model_step")


@dataclass(frozen=True)
class ChatEval:
    """Ask held-out questions and mark the answers: the dataset's own ones, or the benchmark tasks behind ChatCORE."""

    source: str = opt("sft", "which stage's model", choices=SOURCES, short="i")
    task_name: str = opt("all", "tasks or kinds of question, joined by |; all: the dataset stage's questions where "
                         "there are some, else the benchmarks; benchmarks: those in any case", short="a")
    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision", choices=DTYPES, short="d")
    temperature: float = opt(0.0, "0 takes the likeliest token", low=0, short="t")
    top_k: int = opt(50, "sample among this many tokens", low=1, short="k")
    max_new_tokens: int = opt(512, "longest answer in tokens", low=1, short="m")
    num_samples: int = opt(1, "answers per benchmark problem; one right answer is enough", low=1, short="n")
    batch_size: int = opt(64, "questions answered side by side", low=1, short="b")
    max_problems: int | None = opt(None, "at most this many questions (of each benchmark task)", unset=-1, low=1,
                                   short="x")
    model_tag: str | None = opt(None, "which model; none: the largest", short="g")
    step: int | None = opt(None, "which checkpoint; none: the newest", unset=-1, low=0, short="s",
                           also="model_step")


@dataclass(frozen=True)
class Report:
    """Put what every stage measured on one page: report.md and report.json."""

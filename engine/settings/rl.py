"""Settings of chat_rl. Defaults are nanochat's; a file of one's own in GSM8K's schema takes the dataset's place."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt
from engine.settings.choices import DEVICES, DTYPES


@dataclass(frozen=True)
class ChatRl:
    """Reinforcement learning on school sums: answers that end in the right number are made more likely."""

    run: str | None = opt(None, "name of a Weights & Biases run that gets the curves too; dummy: none of them; none: "
                          "as WANDB_RUN says")
    source: str = opt("sft", "start from this stage's model", choices=("mid", "sft"))
    task: str = opt("GSM8K", "what to solve: GSM8K, or a .jsonl file with question and answer (#### number) per line")
    test_task: str | None = opt(None, "what pass@k is measured on; none: GSM8K's test split, or the file itself")
    device_type: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision of the matrix products; weights stay float32", choices=DTYPES)
    device_batch_size: int = opt(8, "answers sampled, and rows trained on, side by side", low=1)
    examples_per_step: int = opt(16, "problems per optimizer step, over all devices", low=1)
    num_samples: int = opt(16, "answers per problem; a multiple of device_batch_size", low=1)
    max_new_tokens: int = opt(256, "longest answer in tokens", low=1)
    temperature: float = opt(1.0, "of the sampled answers", low=0)
    top_k: int = opt(50, "sample among this many tokens", low=1)
    unembedding_lr: float = opt(0.004, "AdamW learning rate of lm_head, at 768 channels", low=0)
    embedding_lr: float = opt(0.2, "AdamW learning rate of the token embedding, at 768 channels", low=0)
    matrix_lr: float = opt(0.02, "Muon learning rate of the blocks' matrices", low=0)
    scalar_lr: float = opt(0.5, "learning rate of a modern model's per-layer scalars", low=0)
    weight_decay: float = opt(0.0, "weight decay", low=0)
    init_lr_frac: float = opt(0.05, "start at this share of the learning rates; they fall to 0", low=0, high=1)
    num_epochs: int = opt(1, "passes over the problems, unless num_iterations says otherwise", low=1)
    num_iterations: int | None = opt(None, "optimizer steps; none: what the epochs give", unset=-1, low=1)
    save_every: int | None = opt(60, "steps between checkpoints; none: only the last", unset=-1, low=1)
    eval_every: int | None = opt(60, "steps between measurements of pass@k; none: only at the end", unset=-1, low=1)
    eval_examples: int = opt(400, "test problems per measurement", low=1)
    model_tag: str | None = opt(None, "which model; none: the largest")
    step: int | None = opt(None, "start from this step of the source model; none: the newest", unset=-1, low=0,
                           also="model_step")
    resume: bool = opt(False, "go on from the newest complete checkpoint of this stage, if there is one")
    resume_from_step: int | None = opt(None, "go on from the checkpoint of this very step", unset=-1, low=0)

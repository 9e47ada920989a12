"""Mid-training: the base model meets conversations, their special tokens and the calculator; every token counts."""

from __future__ import annotations

from engine.context import StageContext
from engine.settings.training import MidTrain
from engine.train.tuning import Tuning, tune


def run(config: MidTrain, context: StageContext) -> None:
    """Train the newest base model on conversations/mid_train.jsonl; leaves mid_checkpoints/<tag>."""
    kind = Tuning("mid", "base", ("mid_train.jsonl", "mid_val.jsonl"), supervise_all=True, title="Midtraining")
    tune(config, context, kind)

"""Supervised fine-tuning: conversations again, but only what the assistant says counts."""

from __future__ import annotations

from engine.context import StageContext
from engine.settings.training import ChatSft
from engine.train.tuning import Tuning, tune


def run(config: ChatSft, context: StageContext) -> None:
    """Train the newest `source` model on conversations/sft_train.jsonl; leaves chatsft_checkpoints/<tag>."""
    kind = Tuning("sft", config.source, ("sft_train.jsonl", "sft_val.jsonl"), supervise_all=False, title="Chat SFT")
    tune(config, context, kind)

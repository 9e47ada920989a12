"""Copies of a model, one per device, and what a client may want to know of them."""

from __future__ import annotations

from typing import Any

import torch

from engine.catalog import ModelInfo
from engine.context import StageError
from engine.inference.chat import Chat, describe, load_chat
from engine.settings.serving import Serve


def load_copies(info: ModelInfo, settings: Serve) -> list[Chat]:
    """The model on `num_gpus` GPUs, or once elsewhere. Raises StageError."""
    count = settings.num_gpus
    if count > 1 and torch.cuda.device_count() < count:
        raise StageError(f"--num-gpus={count}, but this machine has {torch.cuda.device_count()}", "", "device")
    return [_load(info, settings, place) for place in range(count)]


def _load(info: ModelInfo, settings: Serve, place: int) -> Chat:
    chat = load_chat(info.path, info.step, info.tokenizer_dir, settings.device, settings.dtype, settings.backend)
    if place:
        chat.model.to(torch.device("cuda", place))
    return chat


def describe_model(chat: Chat, info: ModelInfo) -> dict[str, Any]:
    return describe(chat, info.path, info.step, info.ref)

"""Small random models and a tokenizer of single bytes, so that what is generated can be reasoned about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.model.config import GPTConfig
from engine.model.gpt import GPT

SPECIAL = ("bos", "user_start", "user_end", "assistant_start", "assistant_end", "python_start", "python_end",
           "output_start", "output_end")


class ByteTokenizer:
    """One token per byte, the nine special tokens from `first_special` on."""

    def __init__(self, first_special: int = 256) -> None:
        self.ids = {f"<|{name}|>": first_special + i for i, name in enumerate(SPECIAL)}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(ids)

    def encode_special(self, text: str) -> int:
        return self.ids[text]

    def get_bos_token_id(self) -> int:
        return self.ids["<|bos|>"]

    def get_special_tokens(self) -> set[str]:
        return set(self.ids)


class ScriptedModel:
    """Answers with one-hot logits from a script per row: the token at each step after the prompt."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, *scripts: list[int], context: int = 64) -> None:
        self.config = GPTConfig(context, 300, 1, 1, 1, 2)
        self.scripts, self.prompt_len, self.calls = scripts, 0, 0
        self.fed: list[list[int]] = []

    def __call__(self, ids: torch.Tensor, kv_cache: object = None, last_only: bool = False) -> torch.Tensor:
        assert last_only
        self.fed.append(ids[:, -1].tolist())
        logits = torch.full((ids.shape[0], 1, self.config.vocab_size), -30.0)
        for row in range(ids.shape[0]):
            script = self.scripts[row % len(self.scripts)]
            logits[row, 0, script[min(self.calls, len(script) - 1)]] = 30.0
        self.calls += 1
        kv_cache.advance(ids.shape[1])  # type: ignore[attr-defined]
        return logits


@pytest.fixture
def byte_tokenizer() -> Callable[..., ByteTokenizer]:
    return ByteTokenizer


@pytest.fixture
def scripted_model() -> Callable[..., ScriptedModel]:
    return ScriptedModel


@pytest.fixture
def random_model() -> Callable[..., GPT]:
    """A float32 model whose weights are all random, none zero, so that every part of it matters."""

    def make(seed: int = 0, *, context: int = 128, vocab: int = 300, n_layer: int = 3, n_head: int = 4,
             n_kv_head: int = 4, n_embd: int = 32) -> GPT:
        generator = torch.Generator().manual_seed(seed)
        model = GPT(GPTConfig(context, vocab, n_layer, n_head, n_kv_head, n_embd)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
            model.transformer["wte"].weight.normal_(generator=generator)
            model.lm_head.weight.mul_(4)  # spread the logits, so that no two are nearly equal
        return model

    return make

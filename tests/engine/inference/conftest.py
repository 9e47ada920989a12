"""Small random models and a tokenizer of single bytes, so that what is generated can be reasoned about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary
from engine.train.checkpoint import save_checkpoint


def make_tokenizer(first_special: int = 256) -> Tokenizer:
    """One token per byte, the nine special tokens from `first_special` on."""
    specials = {name: first_special + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))


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
def byte_tokenizer() -> Callable[..., Tokenizer]:
    return make_tokenizer


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
            model.transformer.wte.weight.normal_(generator=generator)
            model.lm_head.weight.mul_(4)  # spread the logits, so that no two are nearly equal
        return model

    return make


def chain_model(tokens: Sequence[int], context: int) -> GPT:
    """A real GPT that says `tokens` one after the other, whatever came before the first: embeddings are one-hot and
    lm_head maps every token to its successor. The last one repeats for ever."""
    model = GPT(GPTConfig(context, 265, 1, 1, 1, 266))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.wte.weight[:, :265] = torch.eye(265)
        for now, then in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
            model.lm_head.weight[then, now] = 10.0
    return model


@pytest.fixture(scope="session")
def save_chain() -> Callable[..., tuple[Path, Path]]:
    """Writes a chain model as a checkpoint and its tokenizer; returns both folders."""

    def save(base: Path, step: int, answer: Sequence[int], context: int = 256) -> tuple[Path, Path]:
        tokenizer = make_tokenizer()
        tokenizer.save(base / "tokenizer")
        model = chain_model([tokenizer.encode_special("<|assistant_start|>"), *answer], context)
        folder = base / "chatsft_checkpoints" / "d1"
        save_checkpoint(folder, step, source="sft", model=model.state_dict(), tokenizer_sha256=tokenizer.sha256(),
                        meta={"step": step, "model_config": model.config.to_dict()})
        return folder, base / "tokenizer"

    return save

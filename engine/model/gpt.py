"""The GPT: nanochat's classic architecture and all that was added to it since, with nanochat's parameter names.

Rotary positions, QK norm, untied embeddings, relu² MLP, RMS norm without gain, no biases, logit softcap; and, as the
`Architecture` says, windows, per-layer scalars, value embeddings, bigrams, smear and backout. The module knows nothing
of tokenizers, optimizers, files or sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model import counts, row_kernels
from engine.model.attention import Cache, CausalSelfAttention, rotary_tables
from engine.model.config import CLASSIC, SMEAR_CHANNELS, Architecture, GPTConfig
from engine.model.initial import init_classic, init_modern
from engine.model.layers import Linear, rms_norm
from engine.model.loss import IGNORE as IGNORE  # where others look for it
from engine.model.loss import mean_cross_entropy, row_cross_entropy
from engine.model.neighbours import BigramEmbedding, smear
from engine.model.value_embedding import value_tables


class MLP(nn.Module):
    """(B, T, C) -> (B, T, C) through 4C channels and relu²."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        if row_kernels.serves(x) and self.c_fc.product is None:
            y: Tensor = row_kernels.Relu2MLP.apply(x, self.c_fc.weight.to(x.dtype), self.c_proj.weight.to(x.dtype))
            return y
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    """One layer: attention and MLP, each on the normalised stream and added to it."""

    def __init__(self, config: GPTConfig, architecture: Architecture, layer: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config, architecture, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, value: Tensor | None, kv_cache: Cache | None) -> Tensor:
        x = x + self.attn(rms_norm(x), cos, sin, value, kv_cache)
        return x + self.mlp(rms_norm(x))


class Transformer(nn.Module):
    """The token embedding and the blocks; a module of its own because nanochat's parameter names say `transformer.`"""

    def __init__(self, config: GPTConfig, architecture: Architecture, rows: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(rows, config.n_embd)
        self.h = nn.ModuleList([Block(config, architecture, i) for i in range(config.n_layer)])


class GPT(nn.Module):
    """Decoder-only transformer.

    `dtype` is the precision of activations and matrix products; parameters stay float32. `vocab_rows` is the number
    of rows that the embedding tables have, when a checkpoint padded them beyond the vocabulary.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        config: GPTConfig,
        architecture: Architecture = CLASSIC,
        *,
        dtype: torch.dtype = torch.float32,
        vocab_rows: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.architecture, self.dtype = config, architecture, dtype
        rows = vocab_rows or config.vocab_size
        self._add_scalars()
        self.transformer = Transformer(config, architecture, rows)
        self.lm_head = Linear(config.n_embd, rows)
        if architecture.smear:
            self.smear_gate = Linear(SMEAR_CHANNELS, 1)
        if architecture.bigram:
            self.bigram_embed = BigramEmbedding(config.vocab_size, config.n_embd)
        if architecture.gate_channels:
            self.value_embeds = value_tables(config, rows)
        cos, sin = rotary_tables(config, architecture, dtype)
        self.register_buffer("cos", cos, persistent=False)  # (T, 1, D/2)
        self.register_buffer("sin", sin, persistent=False)

    def _add_scalars(self) -> None:
        def scalars(n: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(n))

        a, n_layer = self.architecture, self.config.n_layer
        if a.residual_scalars:
            self.resid_lambdas, self.x0_lambdas = scalars(n_layer), scalars(n_layer)
        if a.bigram:
            self.bigram_lambdas = scalars(n_layer)
        if a.smear:
            self.smear_lambda, self.backout_lambda = scalars(1), scalars(1)

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        kv_cache: Cache | None = None,
        loss_reduction: Literal["mean", "sum", "none"] = "mean",
        last_only: bool = False,
    ) -> Tensor:
        """idx (B, T) -> logits (B, T, V) float32, or with targets (B, T) their cross entropy in nats.

        Targets of -1 are ignored. `loss_reduction="none"` gives (B*T,). `last_only` computes the logits of the last
        position alone, (B, 1, V). With a cache, positions go on from `kv_cache.pos`, which this call advances.
        Raises ValueError when positions exceed `sequence_len`.
        """
        x = self._trunk(idx, kv_cache, last_only)
        if targets is None:
            return self._logits(x)
        rows, flat = x.flatten(0, 1), targets.flatten().long()
        settled = (self.lm_head.weight, flat, self.config.vocab_size, self.architecture.softcap)
        if self._whole_logits(loss_reduction):
            return F.cross_entropy(self._logits(rows), flat, ignore_index=IGNORE, reduction=loss_reduction)
        return mean_cross_entropy(rows, *settled) if loss_reduction == "mean" else row_cross_entropy(rows, *settled)

    def _whole_logits(self, reduction: str) -> bool:
        """Whether the loss must go through all logits at once: the compiler fuses that by itself, 8-bit products are
        the layer's business, and only means have gradients piece by piece."""
        fused = torch.compiler.is_compiling() and self.device.type != "cpu"
        if fused or self.lm_head.product is not None or reduction == "sum":
            return True
        return reduction == "none" and torch.is_grad_enabled()

    def _trunk(self, idx: Tensor, kv_cache: Cache | None, last_only: bool) -> Tensor:
        """Token ids (B, T) -> final normalised stream (B, T or 1, C)."""
        T = idx.shape[1]
        start = kv_cache.pos if kv_cache is not None else 0
        if start + T > self.cos.shape[0]:
            raise ValueError(f"position {start + T} is beyond the context of {self.cos.shape[0]} tokens")
        places = slice(T) if kv_cache is None else kv_cache.places(T)
        cos, sin = self.cos[places], self.sin[places]
        x = rms_norm(F.embedding(idx, self.transformer.wte.weight).to(self.dtype))
        x = self._blocks(x, idx, cos, sin, kv_cache)
        if kv_cache is not None:
            kv_cache.advance(T)
        return rms_norm(x[:, -1:] if last_only else x)

    def _blocks(self, x: Tensor, idx: Tensor, cos: Tensor, sin: Tensor, kv_cache: Cache | None) -> Tensor:
        """The stream (B, T, C) through all layers, with what the architecture adds before, between and after them."""
        a = self.architecture
        state = None if kv_cache is None else kv_cache.state
        if a.smear:
            x = smear(x, self.smear_gate, self.smear_lambda, state)
        x0, middle = x, x
        pairs = self.bigram_embed(idx, state).to(x.dtype) if a.bigram else None
        for i, block in enumerate(self.transformer.h):
            if a.residual_scalars:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            if pairs is not None:
                x = x + self.bigram_lambdas[i] * pairs
            x = block(x, cos, sin, self._value(i, idx), kv_cache)
            if i == self.config.n_layer // 2:
                middle = x
        return x - self.backout_lambda.to(x.dtype) * middle if a.smear else x

    def _value(self, layer: int, idx: Tensor) -> Tensor | None:
        """Value embeddings (B, T, K·D) of the tokens, in a layer that has them."""
        if not self.architecture.gate_channels or not self.config.has_value_embedding(layer):
            return None
        return self.value_embeds[str(layer)](idx)

    def _logits(self, x: Tensor) -> Tensor:
        """Stream (..., C) -> soft-capped logits (..., V) float32; padded vocabulary rows are cut off."""
        logits = self.lm_head(x)[..., : self.config.vocab_size].float()
        return self.architecture.softcap * torch.tanh(logits / self.architecture.softcap)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random weights by nanochat's recipe for this architecture."""
        named = list(self.named_parameters())
        if self.architecture.modern:
            init_modern(self.config, named, generator)
        else:
            init_classic(named, generator)

    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by kind: wte, value_embeds, lm_head, transformer_matrices, scalars, total."""
        return counts.parameter_counts(self.config, self.architecture, self.vocab_rows)

    def flops_per_token(self) -> float:
        """Training FLOPs per token, forward and backward, as nanochat counts them for this architecture."""
        return counts.flops_per_token(self.config, self.architecture, self.vocab_rows)

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding tables: the vocabulary and its padding."""
        return self.lm_head.weight.shape[0]

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device


def gpt_from_state(
    config: GPTConfig,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> GPT:
    """A model around the given tensors, loaded strictly. Raises ValueError naming the first wrong key or shape."""
    rows = state["transformer.wte.weight"].shape[0] if "transformer.wte.weight" in state else config.vocab_size
    with torch.device("meta"):
        model = GPT(config, architecture, dtype=dtype, vocab_rows=rows)
    _check_state({k: v.shape for k, v in model.state_dict().items()}, state)
    model.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    model.cos, model.sin = rotary_tables(config, architecture, dtype)
    return model.to(device)


def _check_state(expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> None:
    for key, shape in expected.items():
        if key not in state:
            raise ValueError(f"the checkpoint has no {key}")
        if state[key].shape != shape:
            raise ValueError(f"{key}: expected shape {tuple(shape)}, found {tuple(state[key].shape)}")
    extra = [key for key in state if key not in expected]
    if extra:
        raise ValueError(f"the checkpoint has an unknown tensor {extra[0]}")

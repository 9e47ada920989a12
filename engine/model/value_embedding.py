"""Value embeddings: in alternate layers each token adds a vector of its own to its attention values, behind a gate.

The gate looks at the first channels of the layer's input and opens per key/value head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.model.config import Architecture, GPTConfig
from engine.model.layers import Linear


def value_tables(config: GPTConfig, rows: int) -> nn.ModuleDict:
    """One table (rows, K·D) per layer that has value embeddings, under the layer's number as nanochat names them."""
    width = config.n_kv_head * config.head_dim
    layers = [i for i in range(config.n_layer) if config.has_value_embedding(i)]
    return nn.ModuleDict({str(i): nn.Embedding(rows, width) for i in layers})


def value_gate(config: GPTConfig, architecture: Architecture) -> Linear:
    return Linear(architecture.gate_channels, config.n_kv_head)


def gated(v: Tensor, embedded: Tensor, x: Tensor, gate: Linear, architecture: Architecture) -> Tensor:
    """v (B, T, K, D) plus the token's value embedding (B, T, K·D) times its gate, which reads x (B, T, C)."""
    opening = architecture.gate_scale * torch.sigmoid(gate(x[..., : architecture.gate_channels]))  # (B, T, K)
    return v + opening[..., None] * embedded.view_as(v).to(v.dtype)

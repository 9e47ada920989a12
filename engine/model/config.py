"""The shape of a GPT and the constants that nanochat changed over time; no tensors here.

A checkpoint's `model_config` holds only the shape. Which constants it was trained with is told by the keys of its
state dict, so `architecture_of` reads those and refuses what this model does not compute.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


class UnsupportedArchitecture(ValueError):
    """The checkpoint needs a computation that this version does not have; loading it would give wrong answers."""


@dataclass(frozen=True)
class Architecture:
    """Constants that are not recorded in any nanochat checkpoint."""

    rope_base: float = 10_000.0
    softcap: float = 15.0  # logits are squeezed into (-softcap, softcap)
    qk_scale: float = 1.0  # after QK norm, q and k are each multiplied by this


CLASSIC = Architecture()

# Keys that only later architectures have, and the first date a checkpoint could carry them.
_MODERN_KEYS = {
    "resid_lambdas": "per-layer residual scalars (2026-01-11)",
    "value_embeds": "value embeddings (2026-01-17)",
    "bigram": "hashed bigram embeddings (2026-01-27)",
    "smear": "smear and backout (2026-03-14)",
}


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model, with nanochat's field names: this is `model_config` in a checkpoint's meta file."""

    sequence_len: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.n_kv_head < 1 or self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.head_dim % 2:
            raise ValueError(f"head dimension {self.head_dim} is odd: rotary embedding needs pairs")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def from_depth(
    depth: int, *, vocab_size: int, sequence_len: int, width: int | None = None, head_dim: int = 128
) -> GPTConfig:
    """nanochat's one dial: width is 64 x depth and heads are about `head_dim` wide."""
    n_embd = width or 64 * depth
    n_head = max(1, (n_embd + head_dim - 1) // head_dim)
    return GPTConfig(sequence_len, vocab_size, depth, n_head, n_head, n_embd)


def config_from_meta(values: Mapping[str, Any]) -> GPTConfig:
    """GPTConfig from a meta file's `model_config`, refusing names and windows that this version does not know."""
    known = {f.name for f in fields(GPTConfig)}
    pattern = str(values.get("window_pattern", "L"))
    if set(pattern) != {"L"}:
        raise UnsupportedArchitecture(f"window_pattern {pattern!r}: sliding windows are not supported by this version")
    extra = set(values) - known - {"window_pattern"}
    if extra:
        raise UnsupportedArchitecture(f"model_config has fields this version does not know: {', '.join(sorted(extra))}")
    return GPTConfig(**{k: int(v) for k, v in values.items() if k in known})


def architecture_of(keys: Collection[str]) -> Architecture:
    """Constants for a state dict with these keys. Raises UnsupportedArchitecture for the modern ones."""
    for prefix, what in _MODERN_KEYS.items():
        if any(key.startswith(prefix) or f".{prefix}" in key for key in keys):
            raise UnsupportedArchitecture(f"the checkpoint has {what}, which this version does not compute")
    return CLASSIC

"""The shape of a GPT and the computation that nanochat changed over time; no tensors here.

A checkpoint's `model_config` holds only the shape. Which computation it was trained with is told by the keys and shapes
of its state dict, so `architecture_of` reads those, and refuses what is none of the dated architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

SMEAR_CHANNELS = 24  # of the embedding that the smear gate reads
BIGRAM_ROWS_PER_TOKEN = 5  # rows of the hashed bigram table per token of the vocabulary


class UnsupportedArchitecture(ValueError):
    """The checkpoint needs a computation that is not known here; loading it would give wrong answers."""


class Shaped(Protocol):
    """What the detector needs of a tensor."""

    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True)
class Architecture:
    """One dated computation. No nanochat checkpoint records it; ours do, in the meta file.

    `gate_channels` 0 means no value embeddings. `window_divisor` n: a short window is the context / n, rounded up to
    `window_multiple` keys; it matters only where the config has a window pattern with an S.
    """

    era: str = "seed"
    rope_base: float = 10_000.0
    bf16_rotary: bool = True  # the rotary table was rounded to bfloat16 whatever the precision of the rest
    softcap: float = 15.0  # logits are squeezed into (-softcap, softcap)
    qk_scale: float = 1.0  # after QK norm, q and k are each multiplied by this
    residual_scalars: bool = False  # resid_lambdas and x0_lambdas, one of each per layer
    window_divisor: int = 2
    window_multiple: int = 1
    gate_channels: int = 0
    gate_scale: float = 2.0
    bigram: bool = False  # hashed embeddings of token pairs
    smear: bool = False  # a gated share of the previous token's embedding, and the subtraction of a middle layer

    @property
    def modern(self) -> bool:
        """Whether it has more than the classic parameters, and so nanochat's later initial weights and optimizer."""
        return self.residual_scalars


CLASSIC = Architecture()
_LAMBDAS = Architecture("lambdas", residual_scalars=True)
_WINDOWS = replace(_LAMBDAS, era="windows")
_VALUES = replace(_WINDOWS, era="value_embeds", gate_channels=32)
_BIGRAM = replace(_VALUES, era="bigram", bigram=True)
_SOFTCAP20 = replace(_VALUES, era="softcap20", softcap=20.0, bf16_rotary=False)
_GATE12 = replace(_VALUES, era="gate12", gate_channels=12, gate_scale=3.0, rope_base=100_000.0, qk_scale=1.15,
                  bf16_rotary=False, window_divisor=3, window_multiple=128)  # fmt: skip
MODERN = replace(_GATE12, era="head", smear=True, qk_scale=1.2, window_divisor=4)
ERAS = {a.era: a for a in (CLASSIC, _LAMBDAS, _WINDOWS, _VALUES, _BIGRAM, _SOFTCAP20, _GATE12, MODERN)}

# (residual scalars, gate columns, bigram, smear) as a state dict shows them. The softcap of 2026-03-02 to 03-08 shows
# nowhere: those weights read as value_embeds unless the meta file says `"architecture": {"era": "softcap20"}`.
_SIGNS = {(a.residual_scalars, a.gate_channels, a.bigram, a.smear): a for a in ERAS.values() if a is not _SOFTCAP20}


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model, with nanochat's field names: this is `model_config` in a checkpoint's meta file."""

    sequence_len: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    window_pattern: str | None = None  # S and L, tiled over the layers; None in eras that had no windows

    def __post_init__(self) -> None:
        if min(self.sequence_len, self.vocab_size, self.n_layer, self.n_head, self.n_kv_head, self.n_embd) < 1:
            raise ValueError("every number of a model's shape must be at least 1")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.head_dim % 2:
            raise ValueError(f"head dimension {self.head_dim} is odd: rotary embedding needs pairs")
        pattern = self.window_pattern
        if pattern is not None and (not pattern or set(pattern.upper()) - set("SL")):
            raise ValueError(f"window_pattern {self.window_pattern!r}: only the letters S and L are known")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def to_dict(self) -> dict[str, Any]:
        """As nanochat of the same era writes it: without a window pattern where there was none."""
        return {k: v for k, v in asdict(self).items() if v is not None}

    def has_value_embedding(self, layer: int) -> bool:
        """Alternate layers, the last one always (in the architectures that have them at all)."""
        return layer % 2 == (self.n_layer - 1) % 2


def windows(config: GPTConfig, architecture: Architecture) -> list[int | None]:
    """Per layer, how many earlier keys a query sees beside its own; None: all of them.

    The last layer always sees all. A short window of n keys is n + 1 with the query's own, as FlashAttention counts.
    """
    pattern = (config.window_pattern or "L").upper()
    short = -(-config.sequence_len // architecture.window_divisor)
    if architecture.window_multiple == 1:
        short = config.sequence_len // architecture.window_divisor
    short = -(-short // architecture.window_multiple) * architecture.window_multiple
    letters = [pattern[i % len(pattern)] for i in range(config.n_layer - 1)] + ["L"]
    return [short if letter == "S" and short < config.sequence_len else None for letter in letters]


def from_depth(
    depth: int, *, vocab_size: int, sequence_len: int, width: int | None = None, head_dim: int = 128
) -> GPTConfig:
    """The classic dial: width is 64 x depth and heads are about `head_dim` wide."""
    n_embd = width or 64 * depth
    n_head = max(1, (n_embd + head_dim - 1) // head_dim)
    return GPTConfig(sequence_len, vocab_size, depth, n_head, n_head, n_embd)


def modern_from_depth(
    depth: int,
    *,
    vocab_size: int,
    sequence_len: int,
    aspect_ratio: int = 64,
    head_dim: int = 128,
    window_pattern: str = "SSSL",
) -> GPTConfig:
    """The modern dial: width is `aspect_ratio` x depth, rounded up to whole heads of exactly `head_dim`."""
    n_head = max(1, -(-depth * aspect_ratio // head_dim))
    return GPTConfig(sequence_len, vocab_size, depth, n_head, n_head, n_head * head_dim, window_pattern)


def config_from_meta(values: Mapping[str, Any]) -> GPTConfig:
    """GPTConfig from a meta file's `model_config`. Raises UnsupportedArchitecture at a field that is not known."""
    known = {f.name for f in fields(GPTConfig)}
    if extra := set(values) - known:
        raise UnsupportedArchitecture(f"model_config has fields this version does not know: {', '.join(sorted(extra))}")
    numbers = {k: int(v) for k, v in values.items() if k != "window_pattern"}
    pattern = values.get("window_pattern")
    return GPTConfig(**numbers, window_pattern=None if pattern is None else str(pattern))


def architecture_of(
    state: Mapping[str, Shaped], config: GPTConfig | None = None, recorded: Mapping[str, Any] | None = None
) -> Architecture:
    """The computation that belongs to a state dict.

    `recorded` is the meta file's "architecture", which wins where it is there: {"era": name} and, for single
    constants, their names. Raises UnsupportedArchitecture when keys and shapes fit no era, or not the recorded one.
    """
    found = _detect(state)
    if found is _WINDOWS and config is not None and config.window_pattern is None:
        found = _LAMBDAS
    if not recorded:
        return found
    chosen = _recorded(recorded, found)
    if _sign(chosen) != _sign(found):
        raise UnsupportedArchitecture(
            f"the meta file says architecture {chosen.era!r}, but the tensors are those of {found.era!r}"
        )
    return chosen


def _sign(a: Architecture) -> tuple[bool, int, bool, bool]:
    return a.residual_scalars, a.gate_channels, a.bigram, a.smear


def _detect(state: Mapping[str, Shaped]) -> Architecture:
    gates = {int(t.shape[-1]) for key, t in state.items() if key.endswith(".attn.ve_gate.weight")}
    sign = (
        "resid_lambdas" in state,
        max(gates, default=0),
        any(key.startswith("bigram") for key in state),
        any(key.startswith("smear") for key in state),
    )
    if sign not in _SIGNS or len(gates) > 1:
        scalars, columns, bigram, smear = sign
        raise UnsupportedArchitecture(
            f"no dated nanochat architecture has this set of tensors: residual scalars {scalars}, value-embedding gate "
            f"columns {sorted(gates) or columns}, bigram embeddings {bigram}, smear {smear}"
        )
    return _SIGNS[sign]


def _recorded(recorded: Mapping[str, Any], found: Architecture) -> Architecture:
    era = recorded.get("era", found.era)
    known = {f.name for f in fields(Architecture)}
    if era not in ERAS or set(recorded) - known:
        raise UnsupportedArchitecture(f"the meta file's architecture {dict(recorded)!r} is not known to this version")
    return replace(ERAS[era], **{k: v for k, v in recorded.items() if k != "era"})

"""How many parameters of which kind, and what a token costs: the arithmetic behind horizons, batch sizes and MFU.

Worked out from the shape alone, without tensors, so that a recipe can be priced before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.model.config import BIGRAM_ROWS_PER_TOKEN, SMEAR_CHANNELS, Architecture, GPTConfig, windows

VOCAB_MULTIPLE = 64  # modern embedding tables are padded to whole multiples of this many rows


def padded_rows(vocab_size: int) -> int:
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def parameter_counts(config: GPTConfig, architecture: Architecture, rows: int | None = None) -> dict[str, int]:
    """wte, value_embeds, (bigram_embed), lm_head, transformer_matrices, scalars and total, as nanochat groups them.

    `rows` of the embedding tables; none: the vocabulary, padded in the modern architectures.
    """
    a, C, L, K, D = architecture, config.n_embd, config.n_layer, config.n_kv_head, config.head_dim
    rows = rows or (padded_rows(config.vocab_size) if a.modern else config.vocab_size)
    valued = sum(map(config.has_value_embedding, range(L))) if a.gate_channels else 0
    counts = {"wte": rows * C, "value_embeds": valued * rows * K * D}
    if a.bigram:
        counts["bigram_embed"] = BIGRAM_ROWS_PER_TOKEN * config.vocab_size * C
    counts["lm_head"] = rows * C
    counts["transformer_matrices"] = L * (2 * C * C + 2 * K * D * C + 8 * C * C) + valued * K * a.gate_channels
    counts["scalars"] = (2 * a.residual_scalars + a.bigram) * L + a.smear * (SMEAR_CHANNELS + 2)
    return {**counts, "total": sum(counts.values())}


def scaling_params(counts: Mapping[str, int]) -> int:
    """What the modern horizon multiplies: matrices and lm_head. Look-up tables do not count."""
    return counts["transformer_matrices"] + counts["lm_head"]


def flops_per_token(config: GPTConfig, architecture: Architecture, rows: int | None = None) -> float:
    """Training FLOPs per token, forward and backward: 6 per weight of a matrix product, and attention over what is
    seen (PaLM appendix B). Before windows came, nanochat counted every parameter but wte, scalars too."""
    counts = parameter_counts(config, architecture, rows)
    weights = scaling_params(counts)
    if config.window_pattern is None:
        weights += counts["scalars"]
    elif architecture.smear:
        weights += SMEAR_CHANNELS  # its gate is a matrix product too
    seen = sum(config.sequence_len if w is None else w for w in windows(config, architecture))
    return 6.0 * weights + 12.0 * config.n_head * config.head_dim * seen

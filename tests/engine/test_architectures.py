"""The dated architectures: told from keys and shapes, decoded through the cache as without, counted as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.inference.kv_cache import KVCache
from engine.model.config import (
    CLASSIC,
    ERAS,
    MODERN,
    Architecture,
    GPTConfig,
    UnsupportedArchitecture,
    architecture_of,
    config_from_meta,
    modern_from_depth,
    windows,
)
from engine.model.counts import flops_per_token, parameter_counts, scaling_params
from engine.model.gpt import GPT, gpt_from_state


def random_model(architecture: Architecture, *, n_layer: int = 5, pattern: str | None = "SSL") -> GPT:
    """Every parameter random, so that no part is hidden behind a zero; windows of half the context and less."""
    era = architecture
    if era.window_multiple > 1:  # small enough that a window is narrower than the context
        era = Architecture(**{**era.__dict__, "window_multiple": 4})
    config = GPTConfig(48, 60, n_layer, 4, 2, 64, None if not era.modern else pattern)
    model = GPT(config, era, vocab_rows=64)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.5, generator=generator)
    return model.eval()


def cache_for(model: GPT, rows: int) -> KVCache:
    c = model.config
    return KVCache(rows, c.n_kv_head, c.sequence_len, c.head_dim, c.n_layer)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("chunks", [[48], [1] * 48, [7, 1, 1, 20, 1, 18], [1, 40, 7]])
@torch.no_grad()
def test_reading_through_the_cache_in_any_chunks_equals_one_forward(era: str, chunks: list[int]) -> None:
    model = random_model(ERAS[era])
    ids = torch.randint(0, 60, (2, 48), generator=torch.Generator().manual_seed(1))
    cache = cache_for(model, 2)
    logits = torch.cat([model(part, kv_cache=cache) for part in ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(ids), rtol=0, atol=2e-4)


@torch.no_grad()
def test_a_replicated_cache_carries_the_previous_token() -> None:
    model = random_model(MODERN)
    ids = torch.randint(0, 60, (1, 20), generator=torch.Generator().manual_seed(1))
    cache = cache_for(model, 1)
    model(ids[:, :19], kv_cache=cache)
    wide = cache.replicate(3, 48)
    torch.testing.assert_close(
        model(ids[:, 19:].expand(3, 1), kv_cache=wide), model(ids)[:, 19:].expand(3, 1, -1), rtol=0, atol=2e-4
    )


def test_training_and_evaluation_see_the_same_windows() -> None:
    """With gradients a CPU computes attention another way; the losses must agree all the same."""
    config = GPTConfig(40, 60, 3, 2, 2, 32, "SL")
    model = GPT(config, Architecture(**{**MODERN.__dict__, "window_multiple": 2}))
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.3)
    ids = torch.randint(0, 60, (2, 41), generator=torch.Generator().manual_seed(1))
    with_gradients = model(ids[:, :-1], ids[:, 1:])
    with torch.no_grad():
        without = model(ids[:, :-1], ids[:, 1:])
    assert with_gradients.item() == pytest.approx(without.item(), abs=1e-5)


def meta_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta_000010.json").read_text())


@pytest.mark.parametrize("era", ERAS)
def test_the_era_is_told_from_keys_and_shapes(fixtures: Path, era: str) -> None:
    folder = fixtures / "eras" / era
    state = torch.load(folder / "model_000010.pt", weights_only=True)
    config = config_from_meta(meta_of(folder)["model_config"])
    found = architecture_of(state, config)
    if era == "softcap20":  # nothing in the file tells it from the era before; the meta file may
        assert found.era == "value_embeds"
        assert architecture_of(state, config, {"era": "softcap20"}).softcap == 20
        assert architecture_of(state, config, {"softcap": 18.0}).softcap == 18
    else:
        assert found == ERAS[era]


def test_what_no_era_computes_is_refused() -> None:
    state = {"resid_lambdas": torch.zeros(2), "smear_lambda": torch.zeros(1)}
    with pytest.raises(UnsupportedArchitecture, match="smear True"):
        architecture_of(state)
    with pytest.raises(UnsupportedArchitecture, match="tensors are those of 'seed'"):
        architecture_of({}, None, {"era": "head"})
    with pytest.raises(UnsupportedArchitecture, match="not known"):
        architecture_of({}, None, {"era": "2031"})
    with pytest.raises(UnsupportedArchitecture, match="moe_experts"):
        config_from_meta({"n_layer": 2, "moe_experts": 8})
    with pytest.raises(ValueError, match="S and L"):
        GPTConfig(window_pattern="SXL")


def test_a_tensor_of_another_shape_is_named() -> None:
    model = random_model(MODERN)
    state = {**model.state_dict(), "value_embeds.2.weight": torch.zeros(64, 16)}
    with pytest.raises(ValueError, match=r"value_embeds\.2\.weight: expected shape \(64, 32\), found \(64, 16\)"):
        gpt_from_state(model.config, model.architecture, state, dtype=torch.float32)


@pytest.mark.parametrize(
    ("era", "length", "short"),
    [("windows", 2048, 1024), ("gate12", 2048, 768), ("head", 2048, 512), ("head", 512, 128), ("head", 96, None)],
)
def test_short_windows(era: str, length: int, short: int | None) -> None:
    config = GPTConfig(length, 512, 5, 2, 2, 32, "SSL")
    assert windows(config, ERAS[era]) == [short, short, None, short, None]
    assert windows(GPTConfig(length, 512, 3, 2, 2, 32), ERAS[era]) == [None] * 3


@pytest.mark.parametrize(
    ("depth", "width", "total", "scaling", "flops"),
    [
        (6, 384, 73_531_538, 23_199_852, 1.675e8),
        (12, 768, 286_261_730, 110_100_912, 7.597e8),
        (16, 1024, 536_871_738, 234_881_792, 1.585e9),
        (20, 1280, 896_533_746, 435_160_240, 2.886e9),
        (24, 1536, 1_384_122_122, 729_810_624, 4.775e9),
        (26, 1664, 1_681_786_938, 918_423_532, 5.991e9),
        (32, 2048, 2_818_575_450, 1_677_724_672, 1.077e10),
    ],
)
def test_modern_parameter_and_flop_counts(depth: int, width: int, total: int, scaling: int, flops: float) -> None:
    config = modern_from_depth(depth, vocab_size=32768, sequence_len=2048)
    counts = parameter_counts(config, MODERN)
    assert (config.n_embd, config.n_head) == (width, width // 128)
    assert (counts["total"], scaling_params(counts)) == (total, scaling)
    assert flops_per_token(config, MODERN) == pytest.approx(flops, rel=5e-4)
    if depth <= 12:
        with torch.device("meta"):
            model = GPT(config, MODERN)
        assert (model.n_params(), len(model.state_dict())) == (total, {6: 49, 12: 91}[depth])


def test_modern_initial_weights_follow_the_recipe() -> None:
    config = modern_from_depth(4, vocab_size=512, sequence_len=64)
    model = GPT(config, MODERN)
    model.init_weights(torch.Generator().manual_seed(0))
    block, std = model.transformer.h[1], config.n_embd**-0.5
    assert model.transformer.wte.weight.std().item() == pytest.approx(0.8, rel=0.02)
    assert model.lm_head.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert block.attn.c_q.weight.std().item() == pytest.approx(std, rel=0.02)
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(0.4 * std, rel=0.02)
    assert model.value_embeds["3"].weight.std().item() == pytest.approx(std, rel=0.02)
    assert not block.attn.c_proj.weight.any() and not block.mlp.c_proj.weight.any() and not model.smear_lambda.any()
    assert 0 <= block.attn.ve_gate.weight.min() and block.attn.ve_gate.weight.max() <= 0.02
    assert model.resid_lambdas[[0, 3]].tolist() == pytest.approx([1.15, 1.05])
    assert model.x0_lambdas[[0, 3]].tolist() == pytest.approx([0.20, 0.05])
    assert model.backout_lambda.item() == pytest.approx(0.2)


def test_the_classic_architecture_is_the_default() -> None:
    assert GPT(GPTConfig(16, 32, 1, 2, 2, 16)).architecture == CLASSIC == architecture_of({})

"""The model against what nanochat's own code computed, and against transformers' implementation of the same paper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

from engine.model.config import (
    CLASSIC,
    GPTConfig,
    architecture_of,
    config_from_meta,
    from_depth,
)
from engine.model.gpt import GPT, gpt_from_state

ERAS = ("seed", "padded", "lambdas", "windows", "value_embeds", "bigram", "softcap20", "gate12", "head")


def load_era(folder: Path) -> tuple[GPT, dict[str, np.ndarray]]:
    meta = json.loads((folder / "meta_000010.json").read_text())
    state = torch.load(folder / "model_000010.pt", weights_only=True)
    config = config_from_meta(meta["model_config"])
    recorded = {"era": "softcap20"} if folder.name == "softcap20" else None  # the one era that nothing in a file tells
    model = gpt_from_state(config, architecture_of(state, config, recorded), state, dtype=torch.float32)
    return model.eval(), dict(np.load(folder / "expected.npz"))


@pytest.mark.parametrize("era", ERAS)
@torch.no_grad()
def test_logits_and_losses_equal_upstreams(fixtures: Path, era: str) -> None:
    model, expected = load_era(fixtures / "eras" / era)
    ids = torch.from_numpy(expected["ids"]).long()
    targets = torch.cat([ids[:, 1:], torch.full((2, 1), -1)], dim=1)
    torch.testing.assert_close(
        model(ids)[:, expected["logits_positions"]], torch.from_numpy(expected["logits"]), rtol=0, atol=1e-4
    )
    assert model(ids, targets).item() == pytest.approx(float(expected["loss"]), abs=1e-5)
    per_token = model(ids, targets, loss_reduction="none").view(2, -1)
    torch.testing.assert_close(per_token, torch.from_numpy(expected["loss_per_token"]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("era", ERAS)
@torch.no_grad()
def test_greedy_continuation_equals_upstreams(fixtures: Path, era: str) -> None:
    model, expected = load_era(fixtures / "eras" / era)
    ids = torch.from_numpy(expected["ids"][:1, :20]).long()
    for _ in range(40):
        ids = torch.cat([ids, model(ids, last_only=True)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert ids[0, 20:].tolist() == expected["greedy"].tolist()


@pytest.mark.parametrize("era", ERAS)
def test_flops_and_keys_equal_upstreams(fixtures: Path, era: str) -> None:
    model, _ = load_era(fixtures / "eras" / era)
    facts = json.loads((fixtures / "eras" / era / "facts.json").read_text())
    assert model.flops_per_token() == facts["flops_per_token"]
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert list(shapes.items()) == [(k, v[0]) for k, v in facts["keys"].items()]
    assert model.n_params() == model.parameter_counts()["total"]


@torch.no_grad()
def test_logits_equal_transformers() -> None:
    """The same weights in transformers' NanoChat, which rotates the other way round and names tensors differently."""
    config = GPTConfig(sequence_len=64, vocab_size=160, n_layer=3, n_head=4, n_kv_head=2, n_embd=64)
    ours = GPT(config)
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    theirs = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=160,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            final_logit_softcapping=15.0,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            attn_implementation="eager",
        )
    ).eval()
    state = {"model.embed_tokens.weight": ours.transformer.wte.weight, "lm_head.weight": ours.lm_head.weight}
    for i, block in enumerate(ours.transformer.h):
        names = {
            "self_attn.q_proj": block.attn.c_q,
            "self_attn.k_proj": block.attn.c_k,
            "self_attn.v_proj": block.attn.c_v,
            "self_attn.o_proj": block.attn.c_proj,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
        }
        state |= {f"model.layers.{i}.{name}.weight": layer.weight for name, layer in names.items()}
    theirs.load_state_dict(state, strict=True)
    ids = torch.randint(0, 160, (2, 40), generator=torch.Generator().manual_seed(1))
    # Ours rounds the rotary table to bfloat16, as the training did; theirs does not.
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=0.1)
    ours.cos, ours.sin = exact_rotary(config)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=2e-4)


def exact_rotary(config: GPTConfig) -> tuple[torch.Tensor, torch.Tensor]:
    inv_freq = 10000.0 ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    angle = torch.outer(torch.arange(config.sequence_len).float(), inv_freq)[:, None, :]
    return angle.cos(), angle.sin()


@pytest.mark.parametrize(
    ("depth", "params", "flops"),
    [
        (4, 36_700_160, 1.447e8),
        (12, 185_597_952, 1.038e9),
        (20, 560_988_160, 3.491758e9),
        (32, 1_879_048_192, 1.207960e10),
    ],
)
def test_parameter_and_flop_counts(depth: int, params: int, flops: float) -> None:
    with torch.device("meta"):
        model = GPT(from_depth(depth, vocab_size=65536, sequence_len=2048))
    assert model.n_params() == params
    assert model.flops_per_token() == pytest.approx(flops, rel=5e-4)


def test_initial_weights_follow_the_recipe() -> None:
    model = GPT(from_depth(4, vocab_size=512, sequence_len=64))
    model.init_weights(torch.Generator().manual_seed(0))
    block = model.transformer.h[0]
    assert model.transformer.wte.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    for zero in (model.lm_head, block.attn.c_proj, block.mlp.c_proj):
        assert not zero.weight.any()


def test_a_wrong_tensor_is_named() -> None:
    model = GPT(GPTConfig(16, 32, 1, 2, 2, 16))
    state = dict(model.state_dict())
    del state["lm_head.weight"]
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        gpt_from_state(model.config, CLASSIC, state, dtype=torch.float32)
    state["lm_head.weight"] = torch.zeros(32, 17)
    with pytest.raises(ValueError, match=r"expected shape \(32, 16\), found \(32, 17\)"):
        gpt_from_state(model.config, CLASSIC, state, dtype=torch.float32)


def test_the_context_has_an_end() -> None:
    with pytest.raises(ValueError, match="context of 16"):
        GPT(GPTConfig(16, 32, 1, 2, 2, 16))(torch.zeros(1, 17, dtype=torch.long))

"""nanochat checkpoints as transformers has them, and back, bit for bit: names, shapes and config.json.

Only the classic architecture exists there; a later one is refused by name, since dropping what does not fit would load
and run another model. Tensors keep their bits and their precision; padded vocabulary rows are cut off on the way out.
Knows no files but what it is given to name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from engine.context import StageError
from engine.model.config import GPTConfig, architecture_of

MODEL_TYPE, CLASS = "nanochat", "NanoChatForCausalLM"
EPSILON = 1.1920928955078125e-07  # of RMS norms, as torch has it for float32

_LAYER = {"attn.c_q": "self_attn.q_proj", "attn.c_k": "self_attn.k_proj", "attn.c_v": "self_attn.v_proj",
          "attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_TOP = {"transformer.wte.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}
TABLES = tuple(_TOP)  # the two with a row per token
_OURS = re.compile(r"transformer\.h\.(\d+)\.(\w+\.\w+)\.weight")
_THEIRS = re.compile(r"model\.layers\.(\d+)\.(\w+\.\w+)\.weight")


class NotExpressible(StageError):
    """The checkpoint needs a computation that the other format does not have."""


def to_transformers(state: Mapping[str, torch.Tensor], config: GPTConfig,
                    recorded: Mapping[str, Any] | None) -> dict[str, torch.Tensor]:
    """A state dict under transformers' names. Raises NotExpressible, naming what does not fit."""
    architecture = architecture_of(state, config, recorded)
    if architecture.modern:
        extra = sorted(key for key in state if _their_name(key) is None)[:4]
        raise NotExpressible(f"this is nanochat's {architecture.era!r} architecture, and transformers has only the "
                             f"classic one of 2025: it has no {', '.join(extra)}",
                             "back it up instead; nanochat and llmconsole load the copy", "format")
    named: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        name = _their_name(key)
        if name is None:
            raise NotExpressible(f"{key} has no place in transformers' nanochat", "", "format")
        rows = config.vocab_size if key in _TOP else tensor.shape[0]
        named[name] = tensor[:rows].contiguous()
    if len(named) != 6 * config.n_layer + 2:
        raise NotExpressible(f"{len(named)} tensors, and {config.n_layer} layers have {6 * config.n_layer + 2}", "",
                             "format")
    return named


def padding(state: Mapping[str, torch.Tensor], config: GPTConfig) -> dict[str, torch.Tensor]:
    """The rows beyond the vocabulary, under our names; {} where there are none."""
    return {key: state[key][config.vocab_size:].contiguous() for key in TABLES
            if state[key].shape[0] > config.vocab_size}


def _their_name(key: str) -> str | None:
    if key in _TOP:
        return _TOP[key]
    match = _OURS.fullmatch(key)
    return f"model.layers.{match[1]}.{_LAYER[match[2]]}.weight" if match and match[2] in _LAYER else None


def from_transformers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `to_transformers`. Raises NotExpressible at a name that nanochat does not have."""
    back = {theirs: ours for ours, theirs in _LAYER.items()}
    top = {theirs: ours for ours, theirs in _TOP.items()}
    named = {}
    for key, tensor in state.items():
        match = _THEIRS.fullmatch(key)
        if key in top:
            named[top[key]] = tensor
        elif match and match[2] in back:
            named[f"transformer.h.{match[1]}.{back[match[2]]}.weight"] = tensor
        else:
            raise NotExpressible(f"{key} is no tensor of transformers' nanochat", "use another model", "format")
    return named


def config_json(config: GPTConfig, specials: Mapping[str, int], dtype: torch.dtype) -> dict[str, Any]:
    """config.json. The constants are nanochat's; transformers' own defaults fit one size of model only."""
    bos, end = specials["<|bos|>"], specials["<|assistant_end|>"]
    return {
        "architectures": [CLASS], "model_type": MODEL_TYPE, "dtype": str(dtype).removeprefix("torch."),
        "vocab_size": config.vocab_size, "hidden_size": config.n_embd, "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer, "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head, "max_position_embeddings": config.sequence_len,
        "hidden_act": "relu2", "rms_norm_eps": EPSILON, "final_logit_softcapping": 15.0, "attention_bias": False,
        "attention_dropout": 0.0, "tie_word_embeddings": False, "use_cache": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": bos, "eos_token_id": end, "pad_token_id": bos,
    }


def config_from_json(fields: Mapping[str, Any]) -> GPTConfig:
    """The shape that a config.json tells. Raises NotExpressible for another model or constants that nanochat lacks."""
    if fields.get("model_type") != MODEL_TYPE:
        raise NotExpressible(f"config.json says model_type {fields.get('model_type')!r}, not nanochat", "", "format")
    rope = fields.get("rope_parameters") or {}
    try:
        shape = GPTConfig(int(fields["max_position_embeddings"]), int(fields["vocab_size"]),
                          int(fields["num_hidden_layers"]), int(fields["num_attention_heads"]),
                          int(fields.get("num_key_value_heads") or fields["num_attention_heads"]),
                          int(fields["hidden_size"]))
        same = (int(fields["intermediate_size"]) == 4 * shape.n_embd, fields.get("hidden_act", "relu2") == "relu2",
                fields.get("final_logit_softcapping", 15.0) == 15.0, not fields.get("attention_bias"),
                not fields.get("tie_word_embeddings"),
                float(rope.get("rope_theta", fields.get("rope_theta", 10000.0))) == 10000.0)
    except (KeyError, TypeError, ValueError) as error:
        raise NotExpressible(f"config.json is not that of a nanochat model: {error}", "", "format") from error
    if not all(same):
        raise NotExpressible("config.json has a width, activation, softcap, bias or rope that nanochat never had", "",
                             "format")
    return shape

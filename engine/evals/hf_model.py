"""A model of the transformers library, so that CORE can be measured beside ours. The library is loaded here only."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine.context import StageError
from engine.device import Device

_CONTEXT_FIELDS = ("n_positions", "max_position_embeddings", "n_ctx", "sequence_len")


class HfTokenizer:
    """Text to ids, without the special tokens that the library would add; the first token of a text is `bos`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str, prepend: int) -> list[int]:
        return [prepend, *self.tokenizer.encode(text, add_special_tokens=False)]

    def get_bos_token_id(self) -> int:
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return int(next(i for i in known if i is not None))


class HfModel:
    """Logits of a causal language model at the places that are scored."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        found = [getattr(config, name, None) for name in _CONTEXT_FIELDS]
        self.max_len = int(next((n for n in found if n), 1024))
        self.vocab_size = int(config.vocab_size)

    def logits_at(self, idx: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        logits: Tensor = self.model(input_ids=idx).logits
        return logits[where].float()


def load_hf(path: str, device: Device) -> tuple[HfModel, HfTokenizer]:
    """A model and its tokenizer by the name of its Hub repository or by folder. Raises StageError with the reason."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise StageError("--hf-path needs the transformers library, which is not installed here",
                         "install it: uv pip install 'transformers>=5,<6'", "transformers") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=device.dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StageError(f"the model {path!r} cannot be loaded: {reason}",
                         "check its name, the network and, for a gated model, HF_TOKEN", "hf-path") from error
    return HfModel(model.to(device.device).eval()), HfTokenizer(tokenizer)


def describe(model: HfModel) -> str:
    count = sum(p.numel() for p in model.model.parameters())
    return f"{type(model.model).__name__}, {count:,} parameters, context {model.max_len}"

"""A checkpoint as a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, and such a folder as a checkpoint.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json  README.md
    nanochat/    meta.json  tokenizer.pkl  token_bytes.pt  padding.safetensors   for coming back bit for bit

A folder appears whole or not at all and nothing is overwritten. Foreign files are read as data: safetensors and JSON.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.catalog import DIRECTORIES
from engine.context import StageError
from engine.interchange import transformers_format as theirs
from engine.interchange.chat_template import CHAT_TEMPLATE
from engine.interchange.model_card import card
from engine.model.config import GPTConfig, UnsupportedArchitecture, config_from_meta
from engine.rundir import write_atomic
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.huggingface import JSON, read_json, write_json
from engine.tokenizer.store import PICKLE, TOKEN_BYTES, TokenizerError, read_vocabulary
from engine.train import checkpoint
from engine.train.archive import load_tensors

BESIDE, PADDING = "nanochat", "padding.safetensors"
_MAX_JSON = 1 << 20


@dataclass(frozen=True)
class Exported:
    """A folder in transformers' format."""

    folder: Path
    tensors: int
    bytes: int


def export(base: Path, source: str, tag: str | None, step: int | None, target: Path) -> Exported:
    """Write a checkpoint of `base` to the new folder `target`. Raises StageError."""
    folder, chosen = checkpoint.resolve(base, source, tag, step)
    checkpoint.verify(folder, chosen, optimizer=False)
    meta = checkpoint.read_meta(folder, chosen)
    vocabulary = read_vocabulary(base / "tokenizer")
    try:
        config = config_from_meta(meta["model_config"])
        state = {str(k).removeprefix("_orig_mod."): v
                 for k, v in load_tensors(folder / f"model_{chosen:06d}.pt").items()}
        tensors = theirs.to_transformers(state, config, meta.get("architecture"))
    except (UnsupportedArchitecture, ValueError, TypeError, AttributeError) as error:
        raise StageError(f"{folder}: {error}", "", "format") from error
    if len(vocabulary) != config.vocab_size:
        raise StageError(f"the tokenizer has {len(vocabulary):,} tokens and the model {config.vocab_size:,}: they do "
                         "not belong together", "restore the model with its own tokenizer", "tokenizer")
    with _new_folder(target) as partial:
        save_file(tensors, partial / "model.safetensors", {"format": "pt"})
        dtype = tensors["lm_head.weight"].dtype
        _json(partial / "config.json", theirs.config_json(config, vocabulary.specials, dtype))
        _tokenizer_files(partial, base / "tokenizer", vocabulary, config.sequence_len)
        _json(partial / "generation_config.json", {
            "bos_token_id": vocabulary.specials["<|bos|>"], "pad_token_id": vocabulary.specials["<|bos|>"],
            "eos_token_id": [vocabulary.specials["<|assistant_end|>"], vocabulary.specials["<|bos|>"]]})
        _json(partial / BESIDE / "meta.json", {"source": source, "tag": folder.name, "step": chosen, "meta": meta})
        if padding := theirs.padding(state, config):
            save_file(padding, partial / BESIDE / PADDING)
        name = f"{folder.name} {source}"
        (partial / "README.md").write_text(card(name, source, chosen, config, meta, base / "report"), encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Exported(target, len(tensors), size)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that gets its name when all that is in it has been written."""
    partial = target.with_name(f".{target.name}.partial")
    if target.exists():
        raise StageError(f"{target} is there already; nothing is overwritten", "name a new folder", "exists")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / BESIDE).mkdir(parents=True)
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tokenizer_files(folder: Path, tokenizer: Path, vocabulary: Any, context: int) -> None:
    write_json(folder, vocabulary)
    _json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>", "pad_token": "<|bos|>", "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE})
    for name in (PICKLE, TOKEN_BYTES):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / BESIDE / name)


def _json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True)
class Imported:
    """A checkpoint that came from transformers' format."""

    folder: Path
    source: str
    step: int


def import_folder(origin: Path, base: Path, source: str | None = None, tag: str | None = None) -> Imported:
    """Make a checkpoint below `base` of a folder in transformers' format. Raises StageError; overwrites nothing."""
    beside = _read_json(origin / BESIDE / "meta.json") if (origin / BESIDE / "meta.json").is_file() else {}
    config = theirs.config_from_json(_read_json(origin / "config.json"))
    state = theirs.from_transformers(_tensors(origin))
    theirs.to_transformers(state, config, None)  # as many tensors as it must have, of the classic architecture
    meta = beside.get("meta") or {"model_config": config.to_dict()}
    _require_same(origin, meta, config)
    source = source or str(beside.get("source") or "sft")
    if source not in DIRECTORIES:
        raise StageError(f"{source!r} is no stage of a model", f"there are: {', '.join(DIRECTORIES)}", "format")
    told = beside.get("step", 0)
    step = told if isinstance(told, int) else -1
    if not 0 <= step < 10**9:
        raise StageError(f"{origin}: {BESIDE}/meta.json names no step", "", "format")
    folder = base / DIRECTORIES[source] / (tag or _plain(beside.get("tag")) or f"d{config.n_layer}")
    if (folder / f"model_{step:06d}.pt").exists():
        raise StageError(f"{folder} has a checkpoint of step {step} already; nothing is overwritten",
                         "import it under another name", "exists")
    _import_tokenizer(origin, base / "tokenizer", config.vocab_size)
    checkpoint.save_checkpoint(folder, step, source=source, model=_padded(state, origin), meta=meta,
                               tokenizer_sha256=read_vocabulary(base / "tokenizer").sha256())
    return Imported(folder, source, step)


def _require_same(origin: Path, meta: Any, config: GPTConfig) -> None:
    """The meta file that came along is that of this model. Raises StageError."""
    try:
        recorded = config_from_meta(meta["model_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"{origin}: {BESIDE}/meta.json is damaged: {error}", "", "format") from error
    if replace(recorded, window_pattern=None) != config:
        raise StageError(f"{origin}: config.json and {BESIDE}/meta.json are of different models", "", "format")


def _padded(state: dict[str, torch.Tensor], origin: Path) -> dict[str, torch.Tensor]:
    """Rows beyond the vocabulary, which no token uses and transformers has no place for, come back as they were."""
    path = origin / BESIDE / PADDING
    if not path.is_file():
        return state
    rows = _load(path)
    if set(rows) != set(theirs.TABLES) or any(tensor.shape[1:] != state[key].shape[1:] for key, tensor in rows.items()):
        raise StageError(f"{path} does not fit the model", "", "format")
    return {key: torch.cat([tensor, rows[key]]) if key in rows else tensor for key, tensor in state.items()}


def _plain(name: object) -> str | None:
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) else None


def _tensors(origin: Path) -> dict[str, torch.Tensor]:
    """Every tensor of model.safetensors, or of the shards that its index names."""
    files = [origin / "model.safetensors"]
    index = origin / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        if not all(isinstance(name, str) and "/" not in name and name.endswith(".safetensors") for name in names):
            raise StageError(f"{index} names files outside its folder", "use another model", "format")
        files = [origin / name for name in names]
    found: dict[str, torch.Tensor] = {}
    for file in files:
        found |= _load(file)
    return found


def _load(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise StageError(f"{file} cannot be read: {error}", "fetch it again", "format") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as f:
            data = f.read(_MAX_JSON * 32)
        value = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path} cannot be read: {error}", "fetch it again", "format") from error
    if not isinstance(value, dict):
        raise StageError(f"{path} holds no JSON object", "", "format")
    return value


def _import_tokenizer(origin: Path, target: Path, vocab_size: int) -> None:
    """tokenizer.pkl itself where it came along, else one made of tokenizer.json; it must be the model's."""
    try:
        if (origin / BESIDE / PICKLE).is_file():
            vocabulary = read_vocabulary(origin / BESIDE)
        elif (origin / PICKLE).is_file():
            vocabulary = read_vocabulary(origin)
        else:
            vocabulary = read_json(origin / JSON)
    except (TokenizerError, FileNotFoundError) as error:
        raise StageError(f"{origin} has no tokenizer that can be used: {error}", "", "tokenizer") from error
    if len(vocabulary) != vocab_size:
        raise StageError(f"{origin}: the tokenizer has {len(vocabulary):,} tokens and the model {vocab_size:,}", "",
                         "tokenizer")
    if (target / PICKLE).is_file():
        if read_vocabulary(target).sha256() != vocabulary.sha256():
            raise StageError(f"{target} holds another tokenizer; nothing is overwritten", "import it under another "
                             "name", "tokenizer")
        return
    target.mkdir(parents=True, exist_ok=True)
    if all((origin / BESIDE / name).is_file() for name in (PICKLE, TOKEN_BYTES)):
        for name in (TOKEN_BYTES, PICKLE):
            shutil.copyfile(origin / BESIDE / name, target / name)
    else:
        Tokenizer(vocabulary).save(target)

"""The tokenizer in Hugging Face's terms: tokenizer.json read and written, and their trainer in place of ours.

A tokenizer.json may come from anywhere. It is plain JSON, and what it says is checked like a tokenizer.pkl: only a
byte-level BPE that gives the very ids of its ranks is taken. Their library is needed to train and for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.rundir import write_atomic
from engine.tokenizer.store import TokenizerError, Vocabulary, check_state

JSON = "tokenizer.json"
_MAX_BYTES = 100_000_000


def _alphabet() -> dict[int, str]:
    """GPT-2's: each byte as a visible character, itself where it is one."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {**{byte: chr(byte) for byte in visible}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


_CHARS = _alphabet()
_BYTES = {char: byte for byte, char in _CHARS.items()}


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> dict[bytes, int]:
    """Ranks learned by the `tokenizers` library: single bytes first, then its merges in order."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    vocab = tokenizer.get_vocab()
    learned = [_to_bytes(token) for token in sorted(vocab, key=vocab.__getitem__) if len(token) > 1]
    return {token: i for i, token in enumerate([*(bytes([byte]) for byte in range(256)), *learned])}


def is_expressible(vocabulary: Vocabulary) -> bool:
    """Whether every token of several bytes is two older ones put together: their format lists merges, not ranks."""
    try:
        return all(_parts(token, vocabulary.ranks) for token in vocabulary.ranks if len(token) > 1)
    except TokenizerError:
        return False


def write_json(folder: Path, vocabulary: Vocabulary) -> Path:
    """Write tokenizer.json, which `tokenizers` and `transformers` read. Returns its path."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": vocabulary.pattern}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ranks = sorted(vocabulary.ranks.items(), key=lambda item: item[1])
    body = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for name, i in vocabulary.specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": True,  # as in tiktoken, a chunk that is a token is that token
            "vocab": {_to_chars(token): i for token, i in ranks},
            "merges": [[_to_chars(part) for part in _parts(token, vocabulary.ranks)]
                       for token, _ in ranks if len(token) > 1],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / JSON, json.dumps(body, ensure_ascii=False, indent=1).encode())
    return folder / JSON


def read_json(path: Path) -> Vocabulary:
    """The vocabulary in a tokenizer.json. Raises FileNotFoundError, or TokenizerError naming the file."""
    with open(path, "rb") as f:
        data = f.read(_MAX_BYTES + 1)
    try:
        if len(data) > _MAX_BYTES:
            raise TokenizerError(f"it is larger than {_MAX_BYTES:,} bytes")
        return _vocabulary(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        cause = error if isinstance(error, TokenizerError) else f"{type(error).__name__}: {error}"
        raise TokenizerError(f"{path} is not a byte-level BPE tokenizer: {cause}") from None


def _vocabulary(body: dict[str, Any]) -> Vocabulary:
    model = body["model"]
    if model["type"] != "BPE" or body.get("normalizer") is not None:
        raise TokenizerError("it is not a BPE without a normalizer")
    splits = [step for step in body["pre_tokenizer"]["pretokenizers"] if step["type"] == "Split"]
    specials = {token["content"]: token["id"] for token in body["added_tokens"]}
    ranks = {_to_bytes(token): i for token, i in model["vocab"].items() if token not in specials}
    vocabulary = check_state({"name": "huggingface", "pat_str": splits[0]["pattern"]["Regex"],
                              "mergeable_ranks": ranks, "special_tokens": specials})
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    made = [ranks[_to_bytes(left) + _to_bytes(right)] for left, right in pairs]
    if made != sorted(made):
        raise TokenizerError("its merges are not in the order of its ids")
    return vocabulary


def _to_chars(token: bytes) -> str:
    return "".join(_CHARS[byte] for byte in token)


def _to_bytes(token: str) -> bytes:
    return bytes(_BYTES[char] for char in token)


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that `token` was made of: what older merges leave of it."""
    parts, limit = [token[i : i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 2:
        made = [ranks.get(parts[i] + parts[i + 1], limit) for i in range(len(parts) - 1)]
        best = min(made)
        if best >= limit:
            raise TokenizerError(f"token {limit} is not made of two older ones")
        at = made.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts

"""The tokenizer's folder, as nanochat has it: tokenizer.pkl and token_bytes.pt.

A folder may come from anywhere, so what is read is checked until it can only be a BPE vocabulary: nothing is executed,
sizes are bounded, and the split pattern must be a known one (a free pattern could run for ever). How text becomes ids
is not known here (`engine.tokenizer.bpe`).
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.rundir import write_atomic
from engine.tokenizer.pickled import MAX_BYTES, PickleError, read_encoding, write_encoding

PICKLE, TOKEN_BYTES = "tokenizer.pkl", "token_bytes.pt"

_SPLIT = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}{{1,{digits}}}"
          r"| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
SPLIT_PATTERN = _SPLIT.format(digits=2)  # nanochat's: numbers in groups of two digits, for small vocabularies
KNOWN_PATTERNS = (SPLIT_PATTERN, _SPLIT.format(digits=3), _SPLIT.format(digits=1))

SPECIAL_TOKENS = (
    "<|bos|>",  # starts every document
    "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>",
    "<|python_start|>", "<|python_end|>",  # the assistant calls the calculator
    "<|output_start|>", "<|output_end|>",  # and reads its answer
)


class TokenizerError(ValueError):
    """The file is no tokenizer that we can use; the message says what is wrong with it."""


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is: `ranks` maps the bytes of a token to its id, 0..n-1; `specials` a name to n, n+1, ..."""

    pattern: str
    ranks: dict[bytes, int]
    specials: dict[str, int]

    def __len__(self) -> int:
        return len(self.ranks) + len(self.specials)

    def sha256(self) -> str:
        """The same for the same vocabulary, whatever file it came from."""
        digest = hashlib.sha256()
        parts = [self.pattern.encode(), *sorted(self.ranks, key=self.ranks.__getitem__)]
        names = sorted(self.specials, key=self.specials.__getitem__)
        for part in [*parts, *(name.encode() for name in names)]:
            digest.update(len(part).to_bytes(4, "little") + part)
        return digest.hexdigest()


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in `folder`/tokenizer.pkl. Raises FileNotFoundError, or TokenizerError naming the file."""
    path = folder / PICKLE
    if not path.is_file():
        raise FileNotFoundError(2, "no tokenizer here", str(path))
    with open(path, "rb") as f:
        data = f.read(MAX_BYTES + 1)
    try:
        return check_state(read_encoding(data))
    except (PickleError, TokenizerError) as error:
        raise TokenizerError(f"{path} is not a nanochat tokenizer: {error}") from None


def check_state(state: dict[str, Any]) -> Vocabulary:
    """The state of a tiktoken.Encoding as a Vocabulary, or TokenizerError."""
    if set(state) != {"name", "pat_str", "mergeable_ranks", "special_tokens"}:
        raise TokenizerError("its parts are not name, pat_str, mergeable_ranks and special_tokens")
    pattern, ranks, specials = state["pat_str"], state["mergeable_ranks"], state["special_tokens"]
    if pattern not in KNOWN_PATTERNS:
        raise TokenizerError("its split pattern is not one of nanochat's")
    if type(ranks) is not dict or type(specials) is not dict:
        raise TokenizerError("its tokens are not a table")
    _check_ids(ranks, bytes, 0)
    _check_ids(specials, str, len(ranks))
    if b"" in ranks or not all(bytes([byte]) in ranks for byte in range(256)):
        raise TokenizerError("it has an empty token, or not all of the 256 single bytes")
    missing = [name for name in SPECIAL_TOKENS if name not in specials]
    if missing:
        raise TokenizerError(f"special tokens are missing: {', '.join(missing)}")
    if "" in specials:
        raise TokenizerError("a special token has no name")
    return Vocabulary(pattern, ranks, specials)


def _check_ids(table: dict[Any, Any], kind: type, first: int) -> None:
    """Keys of one type, ids first, first + 1, ... without a gap."""
    if not all(type(key) is kind for key in table) or not all(type(value) is int for value in table.values()):
        raise TokenizerError("its tokens have the wrong type")
    if sorted(table.values()) != list(range(first, first + len(table))):
        raise TokenizerError(f"ids do not run from {first} without a gap")


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> Path:
    """Write tokenizer.pkl, which nanochat reads as its own. Returns its path.

    Raises TokenizerError for a vocabulary that `read_vocabulary` would refuse.
    """
    state = {"name": "rustbpe", "pat_str": vocabulary.pattern, "mergeable_ranks": vocabulary.ranks,
             "special_tokens": vocabulary.specials}
    check_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PICKLE, write_encoding(state))
    return folder / PICKLE


def write_token_bytes(folder: Path, lengths: list[int]) -> Path:
    """Write token_bytes.pt: int32 (vocab_size,), the bytes of each token, 0 for special ones. Returns its path."""
    import torch  # only here: reading and training a tokenizer do without it

    buffer = io.BytesIO()
    torch.save(torch.tensor(lengths, dtype=torch.int32), buffer)
    write_atomic(folder / TOKEN_BYTES, buffer.getvalue())
    return folder / TOKEN_BYTES

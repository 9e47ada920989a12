"""The tokenizer: text to ids and back. rustbpe learns the merges, tiktoken applies them.

Ordinary text never becomes a special id, whatever it says: those come only from `encode_special`, `prepend` and
`append`. How a conversation is laid out in tokens is not known here (`engine.tokenizer.chat_format`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import tiktoken

from engine.tokenizer.store import (
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    Vocabulary,
    read_vocabulary,
    write_token_bytes,
    write_vocabulary,
)

_BOS = SPECIAL_TOKENS[0]

# tiktoken aborts the process on a run of a million white space characters, so such a run is cut into pieces.
_LONGEST_RUN = 500_000


class Tokenizer:
    """A BPE tokenizer with nanochat's special tokens behind the learned ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoding = tiktoken.Encoding("rustbpe", pat_str=vocabulary.pattern, mergeable_ranks=vocabulary.ranks,
                                           special_tokens=vocabulary.specials)

    @classmethod
    def train_from_iterator(cls, texts: Iterable[str], vocab_size: int, pattern: str = SPLIT_PATTERN) -> Tokenizer:
        """Learn at most `vocab_size` tokens, special ones included; fewer when the text has no more pairs."""
        import rustbpe  # only here: a machine that just talks to a model needs no trainer

        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(texts, vocab_size - len(SPECIAL_TOKENS), pattern=pattern)
        ranks = dict(trainer.get_mergeable_ranks())
        specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        return cls(Vocabulary(pattern, ranks, specials))

    @classmethod
    def from_directory(cls, folder: Path | str) -> Tokenizer:
        """The tokenizer in a nanochat tokenizer folder. Raises FileNotFoundError or TokenizerError."""
        return cls(read_vocabulary(Path(folder)))

    def save(self, folder: Path | str) -> tuple[Path, Path]:
        """Write tokenizer.pkl and token_bytes.pt, which nanochat reads as its own. Returns their paths."""
        return (write_vocabulary(Path(folder), self.vocabulary),
                write_token_bytes(Path(folder), self.token_bytes_lengths()))

    @overload
    def encode(self, text: str, prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[int]: ...

    @overload
    def encode(self, text: list[str], prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[list[int]]: ...

    def encode(self, text: str | list[str], prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[int] | list[list[int]]:
        """Ids of a text, or of each text of a list; `prepend` and `append` are ids or names of special tokens."""
        before, after = self._special_ids(prepend), self._special_ids(append)
        if isinstance(text, str):
            return before + self._encode(text) + after
        if any(len(t) > _LONGEST_RUN for t in text):
            rows = [self._encode(t) for t in text]
        else:
            rows = self._encoding.encode_ordinary_batch(text, num_threads=num_threads)
        return [before + row + after for row in rows] if before or after else rows

    def _encode(self, text: str) -> list[int]:
        if len(text) <= _LONGEST_RUN:
            return self._encoding.encode_ordinary(text)
        return [i for piece in _cut_long_runs(text) for i in self._encoding.encode_ordinary(piece)]

    def _special_ids(self, token: int | str | None) -> list[int]:
        if token is None:
            return []
        return [token if isinstance(token, int) else self.encode_special(token)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; a character cut in half becomes U+FFFD."""
        return self._encoding.decode(ids)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self._encoding.decode_bytes(ids)

    def id_to_token(self, token: int) -> str:
        return self._encoding.decode([token])

    def encode_special(self, name: str) -> int:
        """The id of a special token such as '<|bos|>'. Raises KeyError when there is none of that name."""
        return self.vocabulary.specials[name]

    def get_bos_token_id(self) -> int:
        return self.encode_special(_BOS)

    def get_vocab_size(self) -> int:
        return len(self.vocabulary)

    def get_special_tokens(self) -> set[str]:
        return set(self.vocabulary.specials)

    def token_bytes_lengths(self) -> list[int]:
        """Bytes of each token by id; 0 for special ones, which stand for no text."""
        lengths = [0] * len(self.vocabulary)
        for token, rank in self.vocabulary.ranks.items():
            lengths[rank] = len(token)
        return lengths

    def sha256(self) -> str:
        """Identifies the vocabulary: a model belongs to the tokenizer of this hash."""
        return self.vocabulary.sha256()


def _cut_long_runs(text: str) -> list[str]:
    """`text` in pieces, cut only where more than _LONGEST_RUN white space characters follow each other."""
    pieces, start = [], 0
    for run in re.finditer(r"\s+", text):
        for cut in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN):
            pieces.append(text[start:cut])
            start = cut
    return [*pieces, text[start:]]

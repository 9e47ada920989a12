"""The tokenizer: text to ids and back. rustbpe learns the merges and encodes lists of texts, tiktoken single ones.

Ordinary text never becomes a special id, whatever it says: those come only from `encode_special`, `prepend` and
`append`. How a conversation is laid out in tokens is not known here (`engine.tokenizer.chat_format`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

import tiktoken

from engine.tokenizer.store import (
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    Vocabulary,
    read_vocabulary,
    write_token_bytes,
    write_vocabulary,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    import rustbpe

Progress = Callable[[int, float, int], object]  # documents, megabytes per second, merges done
TRAINERS = ("rustbpe", "huggingface")

_BOS = SPECIAL_TOKENS[0]

# Characters that tiktoken gets at most: it needs no second table and so starts at once, but a million blanks in a row
# abort the process.
_SHORT = 20_000


class Tokenizer:
    """A BPE tokenizer with nanochat's special tokens behind the learned ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoding = tiktoken.Encoding("rustbpe", pat_str=vocabulary.pattern, mergeable_ranks=vocabulary.ranks,
                                           special_tokens=vocabulary.specials)

    @classmethod
    def train_from_iterator(cls, texts: Iterable[str], vocab_size: int, pattern: str = SPLIT_PATTERN, *,
                            trainer: str = "rustbpe", threads: int | None = None,
                            progress: Progress | None = None) -> Tokenizer:
        """Learn at most `vocab_size` tokens, special ones included; fewer when the text has no more pairs.

        `trainer` is one of TRAINERS; theirs takes neither `threads` nor `progress`, and is many times slower.
        """
        if trainer == "huggingface":
            from engine.tokenizer import huggingface

            ranks = huggingface.train(texts, vocab_size - len(SPECIAL_TOKENS), pattern)
        else:
            import rustbpe  # only here: a machine that just talks to a model needs no trainer

            ours = rustbpe.Tokenizer()
            ours.train_from_iterator(texts, vocab_size - len(SPECIAL_TOKENS), pattern=pattern, threads=threads,
                                     progress=progress)
            ranks = dict(ours.get_mergeable_ranks())
        specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        return cls(Vocabulary(pattern, ranks, specials))

    @classmethod
    def from_directory(cls, folder: Path | str) -> Tokenizer:
        """The tokenizer in a nanochat tokenizer folder: its tokenizer.pkl or, without one, its tokenizer.json.

        Raises FileNotFoundError or TokenizerError.
        """
        try:
            return cls(read_vocabulary(Path(folder)))
        except FileNotFoundError:
            from engine.tokenizer import huggingface

            if not (Path(folder) / huggingface.JSON).is_file():
                raise
            return cls(huggingface.read_json(Path(folder) / huggingface.JSON))

    def save(self, folder: Path | str) -> tuple[Path, Path]:
        """Write tokenizer.pkl and token_bytes.pt, which nanochat reads as its own, and return their paths.

        Beside them goes tokenizer.json for everybody else; not where a token was never made by a merge, which only
        happens with ranks from elsewhere and which that format cannot say.
        """
        from engine.tokenizer import huggingface

        folder = Path(folder)
        paths = write_vocabulary(folder, self.vocabulary), write_token_bytes(folder, self.token_bytes_lengths())
        (folder / huggingface.JSON).unlink(missing_ok=True)
        if huggingface.is_expressible(self.vocabulary):
            huggingface.write_json(folder, self.vocabulary)
        return paths

    @overload
    def encode(self, text: str, prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[int]: ...

    @overload
    def encode(self, text: list[str], prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[list[int]]: ...

    def encode(self, text: str | list[str], prepend: int | str | None = None, append: int | str | None = None,
               num_threads: int = 2) -> list[int] | list[list[int]]:
        """Ids of a text, or of each text of a list; `prepend` and `append` are ids or names of special tokens."""
        if isinstance(text, str):
            return self._special_ids(prepend) + self._encode(text) + self._special_ids(append)
        flat, offsets = self.encode_flat(text, prepend, append, num_threads)
        ids, ends = flat.tolist(), offsets.tolist()
        return [ids[start:end] for start, end in itertools.pairwise(ends)]

    def encode_flat(self, texts: list[str], prepend: int | str | None = None, append: int | str | None = None,
                    num_threads: int | None = None) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """The ids of all texts in one array, and where each text starts in it (one more than there are texts).

        The same ids as `encode`, many times faster: no Python number is made. Default: all cores.
        """
        before, after = self._special_ids(prepend), self._special_ids(append)
        try:
            return self._native.encode_flat(texts, before, after, num_threads)
        except UnicodeEncodeError:  # half a surrogate pair becomes U+FFFD, as in tiktoken
            whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
            return self._native.encode_flat(whole, before, after, num_threads)

    @cached_property
    def _native(self) -> rustbpe.Tokenizer:
        import rustbpe

        ranks = sorted(self.vocabulary.ranks.items(), key=lambda item: item[1])
        return rustbpe.Tokenizer.from_ranks(self.vocabulary.pattern, ranks)

    def _encode(self, text: str) -> list[int]:
        if len(text) <= _SHORT:
            return self._encoding.encode_ordinary(text)
        return self.encode_flat([text], num_threads=1)[0].tolist()

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

"""Caches of finished answers, kept for the next turn: a conversation is read once, and then only what is new in it.

What a prompt shares with an earlier one from its first token on needs no reading. Nothing here knows of conversations;
equal tokens are all that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.inference.kv_cache import KVCache
from engine.inference.stepper import Stepper, refresh_state
from engine.model.gpt import GPT

_MOST_BYTES = 1 << 29  # of idle caches, beside the newest one
_WORTHWHILE = 16  # shared tokens; fewer are read again about as fast


class PrefixStore:
    """Holds the `keep` caches that were used last, each of one row, with the tokens that they hold."""

    def __init__(self, model: GPT, stepper: Stepper, keep: int) -> None:
        self._model, self._stepper, self._keep = model, stepper, keep
        self._kept: list[tuple[list[int], KVCache]] = []

    def take(self, prompt_ids: Sequence[int], max_len: int) -> KVCache:
        """A cache with room for `max_len` tokens that holds the first `pos` tokens of the prompt, never all of them.

        It belongs to the caller until it is given back.
        """
        shared, index = max(((_shared(tokens, prompt_ids), i) for i, (tokens, _) in enumerate(self._kept)),
                            default=(0, -1))
        shared = min(shared, len(prompt_ids) - 1)
        if shared < _WORTHWHILE:
            return self._stepper.cache(max_len)
        tokens, cache = self._kept[index]
        if shared < len(tokens) // 2:  # another conversation with the same beginning: it may go on, too
            before = cache.pos
            cache.rewind(shared, tokens[shared - 1])
            own = cache.replicate(1, max_len)
            cache.rewind(before, tokens[-1])
        else:
            del self._kept[index]
            cache.rewind(shared, tokens[shared - 1])
            own = cache if cache.max_len >= max_len and not cache.lodging else cache.replicate(1, max_len)
        refresh_state(self._model, own)
        return own

    def give(self, cache: KVCache, tokens: Sequence[int]) -> None:
        """Keep a cache; it holds the first `pos` of these tokens."""
        if cache.pos:
            self._kept = [*self._kept, (list(tokens[: cache.pos]), cache)][-self._keep :]
        while len(self._kept) > 1 and sum(cache.nbytes for _, cache in self._kept) > _MOST_BYTES:
            del self._kept[0]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the first on."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

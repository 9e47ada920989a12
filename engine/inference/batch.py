"""Continuous batching: answers to different prompts that advance together, and join and leave between two tokens.

The batch knows token ids, caches and sampling. Who asked, in what order people are served, and what a token looks like
as text are its user's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.inference.generate import Engine, Finish
from engine.inference.kv_cache import KVCache
from engine.inference.prefix import PrefixStore
from engine.inference.sampling import Sampler, Sampling
from engine.inference.tool_state import ToolState

_PREFILL_CHUNK = 128  # prompt tokens read per step while others wait for their next token
_ALONE_CHUNK = 512    # and while nobody waits


class BatchFull(ValueError):
    """Every slot is taken: remove one, or wait until one finishes."""


@dataclass(frozen=True)
class Token:
    """What one slot got in one step. `forced`: a tool's result, not sampled.

    `finish` is None while the answer goes on. "stop": `id` is the token that ended it, no part of the answer.
    "length" (max_tokens) and "context" (the model can read no more): `id` is the last token of the answer.
    """

    id: int
    forced: bool
    finish: Finish | None


@dataclass
class _Row:
    """One answer under way. `tokens` are its prompt and what followed; the cache has seen the first `cache.pos`."""

    cache: KVCache
    sampler: Sampler
    tools: ToolState
    room: int  # tokens that may still follow
    by_length: bool  # whether max_tokens, not the context, is what limits it
    tokens: list[int]
    prompt: bool = True


class DecodeBatch:
    """Up to `slots` answers of one model at a time. Not thread-safe: one thread adds, steps and removes.

    ```
    batch = DecodeBatch(engine, slots=8)
    slot = batch.add(prompt_ids, Sampling(0.8, 50, seed=1), max_tokens=256)   # cheap: reads nothing yet
    while batch.active:
        for slot, token in batch.step().items():      # at most one token per slot
            ...                                        # token.finish says that the slot is free again
    batch.remove(slot)                                 # cancels, at once; a slot that is gone is no error
    ```

    A slot number is never used twice. An answer is the one its prompt gets alone with the same `Sampling`, up to the
    rounding of products that are computed for several rows at once. A prompt is read in pieces, one per step and one
    prompt at a time, oldest first, so that a long one does not hold up the answers of others; a slot whose prompt is
    not read yet is missing from what `step` returns, and an empty result does not mean that nothing is left to do:
    `active` tells that. What a prompt shares with an earlier one, as the next turn of a conversation does, is not read
    again.
    """

    def __init__(self, engine: Engine, slots: int = 8) -> None:
        self.engine, self.slots = engine, slots
        self._prefixes = PrefixStore(engine.model, engine.stepper, keep=slots)
        self._rows: dict[int, _Row] = {}
        self._next_slot = 0

    @property
    def active(self) -> int:
        """Slots that are taken."""
        return len(self._rows)

    @property
    def free(self) -> int:
        return self.slots - len(self._rows)

    def add(self, prompt_ids: Sequence[int], sampling: Sampling, max_tokens: int | None = None) -> int:
        """Take a slot. Raises BatchFull, or ValueError when the prompt is empty or leaves no room for one token."""
        if not self.free:
            raise BatchFull(f"all {self.slots} slots are taken")
        room = self.engine.room(len(prompt_ids), max_tokens)
        if not prompt_ids or room < 1:
            raise ValueError(f"a prompt of {len(prompt_ids):,} tokens leaves no room for an answer")
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        self._rows[slot] = _Row(
            self._prefixes.take(prompt_ids, len(prompt_ids) + room), Sampler(sampling, self.engine.model.device),
            ToolState(self.engine.tokenizer, self.engine.special), room, room == max_tokens, list(prompt_ids))
        return slot

    def remove(self, slot: int) -> None:
        """Give a slot up, whatever it is doing."""
        row = self._rows.pop(slot, None)
        if row is not None:
            self._prefixes.give(row.cache, row.tokens)

    def step(self) -> dict[int, Token]:
        """One token for every slot whose prompt is read, and a piece of the oldest prompt that is not."""
        ready = {slot: row for slot, row in self._rows.items() if not row.prompt}
        waiting = next((slot for slot, row in self._rows.items() if row.prompt), None)
        tokens: dict[int, Token] = {}
        if ready:
            logits = self.engine.stepper.step([row.tokens[-1] for row in ready.values()],
                                              [row.cache for row in ready.values()])
            ids = torch.cat([row.sampler(logits[i : i + 1]) for i, row in enumerate(ready.values())]).tolist()
            tokens = {slot: self._take(row, id_) for (slot, row), id_ in zip(ready.items(), ids, strict=True)}
        if waiting is not None:
            tokens |= self._read_prompt(waiting, _PREFILL_CHUNK if ready else _ALONE_CHUNK)
        for slot in [slot for slot, token in tokens.items() if token.finish]:
            self.remove(slot)
        return tokens

    def _read_prompt(self, slot: int, count: int) -> dict[int, Token]:
        """Read `count` more tokens of a prompt; after the last one, the first token of its answer."""
        row = self._rows[slot]
        logits = self.engine.stepper.read([row.tokens[row.cache.pos : row.cache.pos + count]], row.cache)
        if row.cache.pos < len(row.tokens) or logits is None:
            return {}
        row.prompt = False
        return {slot: self._take(row, int(row.sampler(logits)))}

    def _take(self, row: _Row, sampled: int) -> Token:
        """The next token of one row: what was sampled, or what a tool forces on it."""
        forced = row.tools.next_forced()
        token = sampled if forced is None else forced
        row.tools.observe(token)
        row.tokens.append(token)
        row.room -= 1
        finish: Finish | None = None
        if self.engine.special.ends(token):
            finish = "stop"
        elif not row.room:
            finish = "length" if row.by_length else "context"
        return Token(token, forced is not None, finish)

"""Generation with a KV cache: read the prompt once, then one token per step for every row, tools included.

The engine turns token ids into token ids. Text, conversations and protocols are other files' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engine.inference.kv_cache import KVCache
from engine.inference.prefix import PrefixStore
from engine.inference.sampling import Sampler, Sampling
from engine.inference.stepper import ShouldStop as ShouldStop
from engine.inference.stepper import Stepper, TorchStepper, never
from engine.inference.tool_state import ChatTokenizer, SpecialIds, ToolState
from engine.model.gpt import GPT

Finish = Literal["stop", "length", "context", "cancelled"]
Step = tuple[list[int], list[int]]  # one token per row; 1 where it was sampled, 0 where a tool forced it

_KEEP = 2  # finished answers whose caches wait for the next turn


@dataclass(frozen=True)
class Completion:
    """What one prompt got: new tokens without the one that ended them, 1 per sampled and 0 per forced token, and why
    it ended: stop (the model was done), length (max_tokens), context (the context is full), cancelled."""

    tokens: list[int]
    mask: list[int]
    finish: Finish


class Engine:
    """Generates with one model. A row is done at <|assistant_end|> or <|bos|>.

    A prompt that goes on where an earlier one of `generate`, or its answer, ended is read only from there on.
    """

    def __init__(self, model: GPT, tokenizer: ChatTokenizer, stepper: Stepper | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.stepper = stepper or TorchStepper(model)
        self.special = SpecialIds.of(tokenizer)
        self.prefixes = PrefixStore(model, self.stepper, keep=_KEEP)

    def generate(self, prompt_ids: Sequence[int], *, num_samples: int = 1, max_tokens: int | None = None,
                 temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int | None = 42,
                 should_stop: ShouldStop = never) -> Iterator[Step]:
        """Yield steps of `num_samples` tokens, all rows answering the same prompt.

        Ends when every row is done (the token that says so is yielded; rows that were done earlier keep being fed and
        what they then hold means nothing), after `max_tokens` steps, when the context is full, or between two tokens
        once `should_stop()` is true.
        """
        sampler = Sampler(Sampling(temperature, top_k, top_p, seed), self.model.device)
        limit = self.room(len(prompt_ids), max_tokens)
        if not limit:
            return
        cache, held = self.prefixes.take(prompt_ids, len(prompt_ids) + limit), list(prompt_ids)
        try:
            logits = self.stepper.read([prompt_ids[cache.pos :]], cache, should_stop)
            if logits is not None and num_samples == 1:
                for tokens, masks in self._steps(logits, cache, sampler, limit, should_stop):
                    held += tokens
                    yield tokens, masks
            elif logits is not None:
                wide = cache.replicate(num_samples, len(prompt_ids) + limit)
                yield from self._steps(logits.expand(num_samples, -1), wide, sampler, limit, should_stop)
        finally:
            self.prefixes.give(cache, held)

    def generate_batch(self, prompts: Sequence[Sequence[int]], *, max_tokens: int | None = None,
                       temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None,
                       seed: int | None = 42, batch_size: int = 64, should_stop: ShouldStop = never,
                       on_done: Callable[[int], None] | None = None) -> list[Completion]:
        """One completion per prompt, in order; `on_done(n)` tells after each batch how many are finished.

        Prompts of equal length run side by side, at most `batch_size` of them: no padding and no mask, so an answer is
        the one that its prompt gets alone.
        """
        sampler = Sampler(Sampling(temperature, top_k, top_p, seed), self.model.device)
        done: dict[int, Completion] = {}
        for batch in _equal_length_batches(prompts, batch_size):
            rows = [prompts[i] for i in batch]
            done.update(zip(batch, self._complete(rows, sampler, max_tokens, should_stop), strict=True))
            if on_done:
                on_done(len(done))
        return [done[i] for i in range(len(prompts))]

    def room(self, prompt_len: int, max_tokens: int | None = None) -> int:
        """How many tokens may follow a prompt of this length: the rest of the context, or `max_tokens` of it."""
        rest = max(self.model.config.sequence_len - prompt_len, 0)
        return rest if max_tokens is None else min(max_tokens, rest)

    def _complete(self, prompts: list[Sequence[int]], sampler: Sampler, max_tokens: int | None,
                  should_stop: ShouldStop) -> list[Completion]:
        """Completions of prompts of one length, generated side by side."""
        limit = self.room(len(prompts[0]), max_tokens)
        cache = self.stepper.cache(len(prompts[0]) + limit, len(prompts))
        logits = self.stepper.read(prompts, cache, should_stop) if limit else None
        rows: list[tuple[list[int], list[int]]] = [([], []) for _ in prompts]
        ended = [False] * len(prompts)
        for tokens, masks in self._steps(logits, cache, sampler, limit, should_stop) if logits is not None else ():
            for i, (token, mask) in enumerate(zip(tokens, masks, strict=True)):
                ended[i] = ended[i] or self.special.ends(token)
                if not ended[i]:
                    rows[i][0].append(token)
                    rows[i][1].append(mask)
        return [Completion(ids, mask, finish_of(end, len(ids), limit, max_tokens))
                for (ids, mask), end in zip(rows, ended, strict=True)]

    def _steps(self, logits: Tensor, cache: KVCache, sampler: Sampler, limit: int,
               should_stop: ShouldStop) -> Iterator[Step]:
        """From the logits (B, V) behind the prompt to at most `limit` steps."""
        rows = [ToolState(self.tokenizer, self.special) for _ in range(cache.batch_size)]
        ended = [False] * len(rows)
        for remaining in range(limit - 1, -1, -1):
            tokens, masks = _choose(sampler(logits).tolist(), rows)
            ended = [end or self.special.ends(token) for end, token in zip(ended, tokens, strict=True)]
            yield tokens, masks
            if not remaining or all(ended) or should_stop():
                return
            following = self.stepper.read([[token] for token in tokens], cache)
            assert following is not None  # nobody asked to stop meanwhile
            logits = following


def finish_of(ended: bool, count: int, limit: int, max_tokens: int | None) -> Finish:
    """Why a row has `count` tokens and no more, where `limit` of `max_tokens` had room."""
    if ended:
        return "stop"
    if count < limit:
        return "cancelled"
    return "length" if limit == max_tokens else "context"


def _choose(sampled: list[int], rows: list[ToolState]) -> Step:
    """The next token of every row: what a tool forces on it, else what was sampled."""
    tokens, masks = [], []
    for token, row in zip(sampled, rows, strict=True):
        forced = row.next_forced()
        tokens.append(token if forced is None else forced)
        masks.append(1 if forced is None else 0)
        row.observe(tokens[-1])
    return tokens, masks


def _equal_length_batches(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of prompts, at most `batch_size` of one length at a time, short ones first."""
    by_length: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    for _, indices in sorted(by_length.items()):
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]

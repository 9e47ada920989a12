"""CORE: how much a base model has learned to do, over 22 in-context tasks, with guessing at 0 and all right at 1.

Verdicts are those of nanochat's evaluation. It forwards one item at a time; here rows of similar length run side by
side, and logits are computed where a token is scored and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.dist import ALONE, World
from engine.evals.eval_bundle import CoreTask, read_tasks
from engine.evals.icl import Encoder, IclTask, Rows, cut, in_order, rows
from engine.model.attention import rotary_tables
from engine.model.gpt import GPT
from engine.model.places import logits_at

REACH = 10  # times its own context that a model may be asked to look at, as nanochat allows
_TOKENS_PER_PASS = {"cpu": 2048, "cuda": 131_072, "mps": 8192}
_BLOCK = 256  # items whose tokens are in memory together, and sorted by length
_LOGITS_PER_PASS = 1 << 28  # floats: 1 GiB of logits at the scored places

Progress = Callable[[str, int, int], object]  # task, items done, items in all


class Scorer(Protocol):
    """What is evaluated: ids (B, T) to logits (N, V) float32 at given places; `max_len` tokens at most."""

    max_len: int
    vocab_size: int

    def logits_at(self, idx: Tensor, where: tuple[Tensor, Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class TaskScore:
    """What one task gave."""

    label: str
    accuracy: float
    centered: float
    items: int
    seconds: float


class _OurModel:
    """A GPT as a Scorer."""

    def __init__(self, model: GPT) -> None:
        self.model, self.max_len, self.vocab_size = model, model.cos.shape[0], model.config.vocab_size

    def logits_at(self, idx: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        return logits_at(self.model, idx, where)


def evaluate_core(model: GPT | Scorer, tokenizer: Encoder, device: torch.device | str, bundle_dir: Path,
                  max_per_task: int | None = None, progress: Progress | None = None, *, world: World = ALONE,
                  on_task: Callable[[TaskScore], object] | None = None) -> dict[str, Any]:
    """CORE of a model: {"core_metric", "results": {label: accuracy}, "centered_results": {label: centered}, "tasks"}.

    Every rank of `world` takes a share of the items; all get the same result. Raises StageError where the bundle is
    damaged.
    """
    scores = []
    with _ready(model) as scorer:
        for core_task in read_tasks(bundle_dir):
            begin = time.monotonic()
            task = replace(core_task.task, items=in_order(core_task.task.items, max_per_task))
            accuracy = evaluate_task(scorer, tokenizer, device, task, world=world, progress=progress)
            scores.append(TaskScore(task.label, accuracy, centered(accuracy, core_task), len(task.items),
                                    time.monotonic() - begin))
            if on_task:
                on_task(scores[-1])
    return {"core_metric": sum(s.centered for s in scores) / len(scores),
            "results": {s.label: s.accuracy for s in scores},
            "centered_results": {s.label: s.centered for s in scores},
            "tasks": scores}


def centered(accuracy: float, task: CoreTask) -> float:
    """Accuracy with guessing moved to 0; the bundle gives what guessing scores in percent."""
    guess = 0.01 * task.random_baseline
    return (accuracy - guess) / (1.0 - guess)


def evaluate_task(model: GPT | Scorer, tokenizer: Encoder, device: torch.device | str, task: IclTask, *,
                  world: World = ALONE, progress: Progress | None = None) -> float:
    """Share of items answered rightly, over all ranks."""
    mine = range(world.rank, len(task.items), world.size)
    right = sum(verdicts(model, tokenizer, device, task, mine, progress=progress))
    counts = world.total(torch.tensor([right, len(mine)], dtype=torch.float64 if world.alone else torch.float32,
                                      device=world.device))
    return float(counts[0] / counts[1]) if counts[1] else 0.0


@torch.no_grad()
def verdicts(model: GPT | Scorer, tokenizer: Encoder, device: torch.device | str, task: IclTask,
             numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> list[bool]:
    """Whether each item (all, or those of the given numbers) is answered rightly, in order."""
    numbers = range(len(task.items)) if numbers is None else numbers
    found: list[bool] = []
    with _ready(model) as scorer:
        for start in range(0, len(numbers), _BLOCK):
            items = [cut(rows(task, n, tokenizer), scorer.max_len) for n in numbers[start : start + _BLOCK]]
            scored = _Scored(items)
            for batch in _batches(scored.all_rows, torch.device(device).type):
                _score(scorer, scored, batch, device, tokenizer.get_bos_token_id())
            found += [scored.verdict(i) for i in range(len(items))]
            if progress:
                progress(task.label, len(found), len(numbers))
    return found


class _Scored:
    """The rows of many items in one list, and what the model made of each: mean loss, and all tokens foreseen."""

    def __init__(self, items: Sequence[Rows]) -> None:
        self.items = items
        self.all_rows = [(ids, span) for item in items for ids, span in zip(item.ids, item.spans, strict=True)]
        self.first = [0]
        for item in items:
            self.first.append(self.first[-1] + len(item.ids))
        self.loss = [0.0] * len(self.all_rows)
        self.foreseen = [False] * len(self.all_rows)

    def verdict(self, i: int) -> bool:
        begin, end = self.first[i], self.first[i + 1]
        if self.items[i].gold is None:
            return self.foreseen[begin]
        losses = self.loss[begin:end]
        return losses.index(min(losses)) == self.items[i].gold


def _batches(all_rows: Sequence[tuple[list[int], tuple[int, int]]], kind: str) -> Iterator[list[int]]:
    """Numbers of rows that are forwarded together: of similar length, within the memory of this kind of device."""
    room = _TOKENS_PER_PASS.get(kind, 2048)
    batch: list[int] = []
    for number in sorted(range(len(all_rows)), key=lambda n: -len(all_rows[n][0])):
        longest = len(all_rows[batch[0]][0]) if batch else 0
        if batch and (len(batch) + 1) * longest > room:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _score(scorer: Scorer, scored: _Scored, batch: Sequence[int], device: torch.device | str, pad: int) -> None:
    """Forward the rows of a batch, padded at their ends, and note loss and foresight of each."""
    chosen = [scored.all_rows[n] for n in batch]
    T = max(len(ids) for ids, _ in chosen)
    idx = torch.tensor([ids + [pad] * (T - len(ids)) for ids, _ in chosen], device=device)
    places = [(row, at) for row, (_, (start, end)) in enumerate(chosen) for at in range(max(start, 1) - 1, end - 1)]
    losses, hits = [], []
    for some in _chunks(places, scorer.vocab_size):
        row, at = torch.tensor(some, device=device).T
        logits, target = scorer.logits_at(idx, (row, at)), idx[row, at + 1]
        losses.append(F.cross_entropy(logits, target, reduction="none").cpu())
        hits.append((logits.argmax(dim=-1) == target).cpu())
    loss, hit = torch.cat(losses), torch.cat(hits)
    begin = 0
    for n, (_, (start, end)) in zip(batch, chosen, strict=True):
        stop = begin + end - max(start, 1)
        scored.loss[n] = loss[begin:stop].mean().item()
        scored.foreseen[n] = bool(hit[begin:stop].all())
        begin = stop


def _chunks(places: list[tuple[int, int]], vocab_size: int) -> Iterator[list[tuple[int, int]]]:
    """All places at once, nearly always; fewer where their logits would not fit in memory."""
    size = max(1, _LOGITS_PER_PASS // vocab_size)
    for start in range(0, len(places), size):
        yield places[start : start + size]


@contextmanager
def _ready(model: GPT | Scorer) -> Iterator[Scorer]:
    """The model as a Scorer."""
    if not isinstance(model, GPT):
        yield model
        return
    with reach(model) as far:
        yield _OurModel(far)


@contextmanager
def reach(model: GPT) -> Iterator[GPT]:
    """The model in evaluation mode and with positions far beyond its context, for as long as the block runs."""
    kept, training = (model.cos, model.sin), model.training
    far = replace(model.config, sequence_len=REACH * model.config.sequence_len)
    if model.cos.shape[0] < far.sequence_len:
        cos, sin = rotary_tables(far, model.architecture, model.dtype)
        model.cos, model.sin = cos.to(model.device), sin.to(model.device)
    model.eval()
    try:
        yield model
    finally:
        model.cos, model.sin = kept
        model.train(training)

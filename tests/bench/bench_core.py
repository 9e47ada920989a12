"""Items of CORE per second: ours beside one item at a time with all logits, which is how nanochat evaluates.

    python tests/bench/bench_core.py [items]

A random model of six layers on made-up multiple choice items of different length, ten examples each. Interleaved;
verdicts are compared.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from engine.evals import core, icl  # noqa: E402
from engine.model.config import GPTConfig  # noqa: E402
from engine.model.gpt import GPT  # noqa: E402

WORDS = ("sun", "moon", "river", "stone", "green", "seven", "walks", "under", "because", "often")


class Letters:
    """A byte tokenizer that costs nothing."""

    def encode(self, text: str, prepend: int) -> list[int]:
        return [prepend, *text.encode()]

    def get_bos_token_id(self) -> int:
        return 256


@torch.no_grad()
def one_at_a_time(model: GPT, tokenizer: Letters, task: icl.IclTask, number: int) -> bool:
    """The choices of one item as one padded batch, logits at every position, loss of every token."""
    rows = icl.rows(task, number, tokenizer)
    width = max(map(len, rows.ids))
    ids = torch.tensor([row + [256] * (width - len(row)) for row in rows.ids])
    with core.reach(model):
        logits = model(ids)
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    means = [losses[i, start - 1 : end - 1].mean().item() for i, (start, end) in enumerate(rows.spans)]
    return means.index(min(means)) == rows.gold


def main(count: int = 12) -> None:
    chance = random.Random(1)

    def text(n: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(n))

    items = [{"query": text(chance.randint(3, 12)), "choices": [text(chance.randint(1, 4)) for _ in range(4)],
              "gold": chance.randrange(4)} for _ in range(count)]
    task = icl.IclTask("made up", "multiple_choice", min(10, count - 1), "\nAnswer: ", items)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GPT(GPTConfig(1024, 32_768, 6, 6, 6, 384)).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.05)
    tokenizer, block = Letters(), max(1, count // 3)
    theirs, ours, slow, fast = [], [], 0.0, 0.0
    for start in range(0, count, block):
        numbers = range(start, min(count, start + block))
        begin = time.perf_counter()
        theirs += [one_at_a_time(model, tokenizer, task, n) for n in numbers]
        middle = time.perf_counter()
        ours += core.verdicts(model, tokenizer, "cpu", task, numbers)
        slow, fast = slow + middle - begin, fast + time.perf_counter() - middle
    print(f"verdicts agree: {ours == theirs}")
    print(f"one at a time, all logits   {count / slow:6.2f} items/s")
    print(f"batched, scored places only {count / fast:6.2f} items/s   {slow / fast:.2f}x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

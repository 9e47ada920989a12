"""A training step on this CPU: ours beside nanochat's as shipped (float32) and with bfloat16 forced, in turn.

    python tests/bench/bench_train.py [--rows 32] [--rounds 2] [--compile] [--depth 6] [--seq 512] [--vocab 32768]

The settings are nanochat's for a CPU: 6 layers, 6 heads of 64, 512 tokens, 32 rows, one optimizer step per pass, full
windows. Each program is a process of its own; only one works at a time. Peak memory is the process's own. The twin is
compiled, as nanochat is; --compile does the same to ours. The first step, which compiles, is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

Step = Callable[[int], float]

RATES = (0.008, 0.3, 0.02, 0.5)  # unembedding, embedding, matrices, scalars: nanochat's
SCALE = (32 * 512 / 524288) ** 0.5  # as it scales them for a batch of 16,384 tokens


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 32), ("rounds", 2), ("depth", 6), ("seq", 512), ("vocab", 32768), ("steps", 1)):
        words.add_argument(f"--{name}", type=int, default=default)
    words.add_argument("--compile", action="store_true", help="compile ours too")
    words.add_argument("--plain", action="store_true", help="do not compile the twin")
    words.add_argument("--peers", default="float32,bfloat16", help="precisions of the twin to run against")
    words.add_argument("--worker", help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.worker:
        work(asked)
        return
    for peer in asked.peers.split(","):
        compare(asked, f"twin-{peer}")


def compare(asked: argparse.Namespace, peer: str) -> None:
    """Alternate `rounds` times between ours and one peer, and print both."""
    programs = {name: Worker(name) for name in ("ours", peer)}
    results: dict[str, list[float]] = {name: [] for name in programs}
    try:
        first = {name: program.ask(1) for name, program in programs.items()}
        for _ in range(asked.rounds):
            for name, program in programs.items():
                results[name] += program.ask(asked.steps)["seconds"]
        last = {name: program.ask(0) for name, program in programs.items()}
    finally:
        for program in programs.values():
            program.close()
    tokens = asked.rows * asked.seq
    for name in programs:
        seconds = statistics.median(results[name])
        begun, told = first[name]["seconds"][0], last[name]
        print(f"{name:14} {tokens / seconds:8,.0f} tok/s  step {seconds:6.2f} s  first {begun:6.1f} s  "
              f"peak {told['peak_gb']:5.2f} GB  loss {told['losses'][-1]:.4f}  {told['what']}")
    ratio = statistics.median(results[peer]) / statistics.median(results["ours"])
    memory = last["ours"]["peak_gb"] / last[peer]["peak_gb"]
    gap = max(abs(a - b) / b for a, b in zip(last["ours"]["losses"], last[peer]["losses"], strict=False))
    print(f"ours / {peer}: {ratio:.2f} x the speed, {memory:.2f} x the memory; losses within {100 * gap:.2f} %\n",
          flush=True)


class Worker:
    """One program in its process: answers how long its steps took."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # as `python -m engine` sets it
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(steps, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def work(asked: argparse.Namespace) -> None:
    """Read numbers of steps, take them, and tell."""
    step, what = (ours if asked.worker == "ours" else twin)(asked)
    done, losses = 0, []
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            losses.append(step(done))
            seconds.append(time.perf_counter() - begin)
            done += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        print(json.dumps({"seconds": seconds, "losses": losses, "peak_gb": peak, "what": what}), flush=True)


def batch(asked: argparse.Namespace, n: int) -> Any:
    """Inputs and targets (rows, seq) with something to learn: some tokens are common, each has a usual successor."""
    import torch

    generator = torch.Generator().manual_seed(n)
    ids = (torch.rand(asked.rows, asked.seq + 1, generator=generator) ** 4 * asked.vocab).long()
    ids[:, 1::2] = (ids[:, :-1:2] * 7 + 3) % asked.vocab
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def our_model(asked: argparse.Namespace, dtype: Any) -> Any:
    import torch

    from engine.model.config import MODERN, modern_from_depth
    from engine.model.gpt import GPT

    shape = modern_from_depth(
        asked.depth, vocab_size=asked.vocab, sequence_len=asked.seq, head_dim=64, window_pattern="L"
    )
    model = GPT(shape, MODERN, dtype=dtype)
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def ours(asked: argparse.Namespace) -> tuple[Step, str]:
    import torch

    from engine.device import choose_device
    from engine.optim.setup import LearningRates, setup_optimizers
    from engine.train.cpu_memory import keep_freed_memory

    keep_freed_memory()
    device = choose_device("cpu")
    model = our_model(asked, device.dtype)
    rates = LearningRates(*(SCALE * rate for rate in RATES))
    optimizers = setup_optimizers(model, rates, 0.28)
    compute = torch.compile(model, dynamic=False) if asked.compile else model

    def step(n: int) -> float:
        loss = compute(*batch(asked, n))
        loss.backward()
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])  # our loop tells it
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step, f"{device.dtype_name}, {torch.get_num_threads()} threads"


def twin(asked: argparse.Namespace) -> tuple[Step, str]:
    import torch
    from naive_twin import Twin, TwinOptimizer

    from engine.device import choose_device

    choose_device("cpu", "float32")  # the same number of threads
    dtype = getattr(torch, asked.worker.removeprefix("twin-"))
    width = asked.depth * 64
    model = Twin(asked.vocab, asked.depth, width, width // 64, asked.seq, dtype)
    model.take(our_model(asked, torch.float32).state_dict())  # the same start
    optimizer = TwinOptimizer(model, [SCALE * rate for rate in RATES])
    compute = model if asked.plain else torch.compile(model, dynamic=False)

    def step(n: int) -> float:
        loss = compute(*batch(asked, n))
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step, f"{dtype}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()

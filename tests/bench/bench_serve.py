"""What the server adds to decoding, and what many readers at once gain: tokens per second, side by side in one run.

    python tests/bench/bench_serve.py [--base DIR | --depth 4 12] [--backend native torch] [--tokens 100] [--rounds 3]

`direct` is the chat worker's own loop, in a process of its own; the others come over HTTP as a client sees them, 1, 2,
4 and 8 at once. In every round the contenders take turns; the medians are printed, and ratios to `direct` and to one
reader. Without --base random models of nanochat's classic shapes are made. Prints tables; gates nothing.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
AT_ONCE = (1, 2, 4, 8)
CONTEXT = 1024


def part(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).parent.name + "_conftest", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_model(base: Path, depth: int) -> None:
    """A model whose answers go on until they are cut."""
    import torch

    from engine.model.config import from_depth
    from engine.model.gpt import GPT
    from engine.train.checkpoint import save_checkpoint

    tokenizer = part("tests/engine/inference/conftest.py").make_tokenizer()
    tokenizer.save(base / "tokenizer")
    model = GPT(from_depth(depth, sequence_len=CONTEXT, vocab_size=tokenizer.get_vocab_size()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        model.lm_head.weight[256:] = 0  # special tokens stay unlikely
    save_checkpoint(base / "chatsft_checkpoints" / f"d{depth}", 1, source="sft", model=model.state_dict(),
                    tokenizer_sha256=tokenizer.sha256(), meta={"step": 1, "model_config": model.config.to_dict()})


class Direct:
    """The chat worker, asked over its pipe."""

    def __init__(self, base: Path, backend: str, threads: int) -> None:
        environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "LLMCONSOLE_THREADS": str(threads),
                       "OMP_NUM_THREADS": str(threads)}
        words = [sys.executable, "-m", "engine", "chat", "--json", "--source=sft", f"--backend={backend}"]
        self._process = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        self._until("loaded")

    def _until(self, kind: str) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            event = json.loads(line)
            assert event["event"] != "error", event
            if event["event"] == kind:
                return event
        raise AssertionError("the worker ended")

    def asked(self, tokens: int) -> tuple[float, float]:
        """(tokens per second, time to the first token in ms)."""
        assert self._process.stdin
        begin = time.perf_counter()
        self._process.stdin.write(json.dumps({"op": "generate", "id": "g", "messages": MESSAGES, "temperature": 1,
                                              "seed": 1, "max_tokens": tokens}) + "\n")
        self._process.stdin.flush()
        stats = self._until("done")["stats"]
        return stats["completion_tokens"] / (time.perf_counter() - begin), stats["ttft_ms"]

    def close(self) -> None:
        self._process.communicate(timeout=10)


def asked(port: int, tokens: int, at_once: int) -> tuple[float, float]:
    """(tokens per second of all together, median time to the first text in ms). The client does as little as it can:
    it shares the cores with the server."""
    firsts, counts = [0.0] * at_once, [0] * at_once
    body = {"messages": MESSAGES, "max_tokens": tokens, "temperature": 1, "stream": True,
            "stream_options": {"include_usage": True}}

    def one(number: int) -> None:
        begin = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "seed": number}),
                           {"content-type": "application/json"})
        for line in connection.getresponse():
            if not firsts[number] and b'"content":"' in line and b'"content":""' not in line:
                firsts[number] = 1000 * (time.perf_counter() - begin)
            if b'"usage":{' in line:
                counts[number] = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(at_once)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(counts), counts
    return sum(counts) / (time.perf_counter() - begin), statistics.median(firsts)


def compare(base: Path, title: str, backend: str, words: argparse.Namespace) -> None:
    """One table."""
    worker = Direct(base, backend, words.threads)
    server = part("tests/engine/inference/serving/conftest.py").Server(base, f"--backend={backend}",
                                                                       threads=words.threads)
    try:
        worker.asked(8)
        asked(server.port, 8, max(AT_ONCE))
        rounds = [[worker.asked(words.tokens), *(asked(server.port, words.tokens, n) for n in AT_ONCE)]
                  for _ in range(words.rounds)]
    finally:
        worker.close()
        server.stop()
    medians = [[statistics.median(values) for values in zip(*one, strict=True)] for one in zip(*rounds, strict=True)]
    (direct, direct_first), (alone, _), *_ = medians
    print(f"\n{title}, {backend}, {words.threads} threads\n{'':>10} {'tok/s':>8} {'of direct':>10} {'of one':>7} "
          f"{'first text':>11}\n{'direct':>10} {direct:8.0f} {'':>18} {direct_first:8.1f} ms")
    for n, (rate, first) in zip(AT_ONCE, medians[1:], strict=True):
        print(f"{n:>2} at once {rate:8.0f} {rate / direct:9.2f}x {rate / alone:6.2f}x {first:8.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--depth", type=int, nargs="+", default=[4, 12])
    parser.add_argument("--backend", nargs="+", default=["native", "torch"])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    words = parser.parse_args()
    for depth in [0] if words.base else words.depth:
        with tempfile.TemporaryDirectory() as folder:
            base = words.base or Path(folder)
            if not words.base:
                random_model(base, depth)
            for backend in words.backend:
                compare(base, f"d{depth}" if depth else str(base), backend, words)


if __name__ == "__main__":
    main()

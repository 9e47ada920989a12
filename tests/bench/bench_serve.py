"""What the server adds to decoding, and what many readers at once gain: tokens per second, side by side in one run.

    python tests/bench/bench_serve.py [--base DIR] [--tokens 200] [--flags "--backend=torch"]

`direct` is the chat worker's own loop in this process; the others come over HTTP as a client sees them, 1, 2, 4 and 8
at once. Without --base a random d4-sized model is made. Prints one table; gates nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
MESSAGES = [{"role": "user", "content": "Tell me a story."}]


def part(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).parent.name + "_conftest", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_model(base: Path, context: int) -> None:
    """A model of the shape that `tiny` trains, whose answers go on until they are cut."""
    import torch

    from engine.model.config import GPTConfig
    from engine.model.gpt import GPT
    from engine.train.checkpoint import save_checkpoint

    tokenizer = part("tests/engine/inference/conftest.py").make_tokenizer()
    tokenizer.save(base / "tokenizer")
    model = GPT(GPTConfig(context, tokenizer.get_vocab_size(), 4, 4, 4, 256))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        model.lm_head.weight[256:] = 0  # special tokens stay unlikely
    save_checkpoint(base / "chatsft_checkpoints" / "d4", 1, source="sft", model=model.state_dict(),
                    tokenizer_sha256=tokenizer.sha256(), meta={"step": 1, "model_config": model.config.to_dict()})


class Nobody:
    """Hears an answer and lets it pass."""

    def begin(self, prompt: object) -> None: ...

    def token(self, ms: float) -> None: ...

    def piece(self, piece: object) -> None: ...


def direct(base: Path, tokens: int) -> float:
    """Tokens per second of the chat worker's loop."""
    from engine.catalog import default_model, list_models
    from engine.inference.chat import load_chat
    from engine.inference.sampling import Sampling

    info = default_model(list_models(base))
    assert info is not None
    chat = load_chat(info.path, info.step, info.tokenizer_dir)
    rates = []
    for _ in range(3):
        begin = time.perf_counter()
        _, stats = chat.answer(MESSAGES, Sampling(1.0, 50, seed=1), tokens, Nobody(), lambda: False)
        rates.append(stats.completion_tokens / (time.perf_counter() - begin))
    return statistics.median(rates)


def asked(url: str, tokens: int, at_once: int) -> tuple[float, float]:
    """(tokens per second of all together, median time to the first text in ms)."""
    firsts: list[float] = []
    counts: list[int] = []

    def one(seed: int) -> None:
        begin, first = time.perf_counter(), 0.0
        body = {"messages": MESSAGES, "max_tokens": tokens, "temperature": 1, "seed": seed, "stream": True,
                "stream_options": {"include_usage": True}}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply:
            for line in reply.iter_lines():
                if not first and '"content":"' in line and '"content":""' not in line:
                    first = 1000 * (time.perf_counter() - begin)
                if '"usage"' in line:
                    counts.append(json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"])
        firsts.append(first)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(at_once)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin), statistics.median(firsts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--flags", default="")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = words.base or Path(folder)
        if words.base is None:
            random_model(base, 1024)
        alone = direct(base, words.tokens)
        server = part("tests/engine/inference/serving/conftest.py").Server(base, *words.flags.split())
        try:
            asked(server.url, words.tokens, 1)
            print(f"{'':>10} {'tok/s':>9} {'of direct':>10} {'first text':>11}")
            print(f"{'direct':>10} {alone:9.0f} {'':>10} {'':>11}")
            for at_once in (1, 2, 4, 8):
                rounds = [asked(server.url, words.tokens, at_once) for _ in range(3)]
                rate, first = (statistics.median(values) for values in zip(*rounds, strict=True))
                print(f"{at_once:>3} at once {rate:9.0f} {rate / alone:9.2f}x {first:8.1f} ms")
        finally:
            server.stop()


if __name__ == "__main__":
    main()

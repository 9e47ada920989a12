"""Decoding one token at a time on this CPU: our native step beside an eager PyTorch engine and the speed of memory.

    python tests/bench/bench_decode.py [--depth 4 12] [--rounds 5] [--seconds 0.5] [--threads N] [--prompt 512] [--load]

Models of nanochat's classic shapes with random weights, vocabulary 32,768, batch 1. In every round the contenders take
turns, each between two measurements of how fast the same threads read memory when they do nothing else; ratios are made
within a round, and their median over the rounds is printed. The eager engine does what nanochat's does: PyTorch
operations one by one, a key/value cache that grows by concatenation, logits for every position of a prompt.

Before anything is timed, the contenders' greedy tokens are compared. --load writes a checkpoint and compares the time
to load it with the time to read its file. llama.cpp is measured beside ours, on as many bytes, where
LLMCONSOLE_LLAMA_PYTHON names a Python that has llama-cpp-python and gguf.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from llama_peer import PYTHON as LLAMA
from llama_peer import Peer

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.inference.arena import Arena, settle
from engine.inference.kv_cache import KVCache
from engine.inference.native import NativeStepper, decode_threads
from engine.inference.quant import quantize
from engine.model.config import from_depth
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary

VOCAB, CONTEXT, PROBE = 32_768, 2_048, 512 << 20
WARM_PROMPT = 64  # tokens in the cache when decoding is timed
PAUSE = 0.05  # seconds, after which threads that look out for more work have gone to sleep


class GrowingCache:
    """Keys and values as nanochat's first engine keeps them: concatenated, one more for every token."""

    def __init__(self, n_layer: int) -> None:
        self.k: list[torch.Tensor | None] = [None] * n_layer
        self.v: list[torch.Tensor | None] = [None] * n_layer
        self.pos, self.state, self.newest = 0, {}, []

    def insert(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        old_k, old_v = self.k[layer], self.v[layer]
        self.k[layer] = k if old_k is None else torch.cat((old_k, k), dim=2)
        self.v[layer] = v if old_v is None else torch.cat((old_v, v), dim=2)
        return self.k[layer], self.v[layer]

    mask, places = KVCache.mask, KVCache.places

    def advance(self, t: int) -> None:
        self.pos += t


class Eager:
    """One forward pass per token, all positions' logits, one operation after the other."""

    def __init__(self, model: GPT, threads: int) -> None:
        self.model, self.threads = model, threads

    @torch.inference_mode()
    def read(self, ids: list[int], cache: GrowingCache) -> int:
        return int(self.model(torch.tensor([ids]), kv_cache=cache)[:, -1].argmax())

    def start(self, prompt: list[int]) -> tuple[GrowingCache, int]:
        torch.set_num_threads(self.threads)
        cache = GrowingCache(self.model.config.n_layer)
        return cache, self.read(prompt, cache)


class Native:
    """Our engine's stepper, greedy."""

    def __init__(self, model: GPT, threads: int) -> None:
        self.stepper = NativeStepper(model, threads)

    def read(self, ids: list[int], cache: KVCache) -> int:
        logits = self.stepper.read([ids], cache)
        assert logits is not None
        return int(logits.argmax())

    def start(self, prompt: list[int]) -> tuple[KVCache, int]:
        torch.set_num_threads(1)
        cache = self.stepper.cache(CONTEXT)
        return cache, self.read(prompt, cache)


def random_model(depth: int) -> GPT:
    with torch.device("meta"):
        model = GPT(from_depth(depth, vocab_size=VOCAB, sequence_len=CONTEXT))
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(depth)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if "wte" in name else 2.0 * parameter.shape[-1] ** -0.5
            parameter.uniform_(-scale, scale, generator=generator)
    small = GPT(from_depth(1, vocab_size=2, sequence_len=CONTEXT, width=model.config.head_dim))
    model.cos, model.sin = small.cos, small.sin
    return model


def in_precision(depth: int, kind: str) -> GPT:
    """The model as the product stores it."""
    model = random_model(depth)
    if kind != "float32":
        model.dtype = torch.bfloat16
        model.cos, model.sin = model.cos.bfloat16(), model.sin.bfloat16()
    if kind == "int8":
        quantize(model)
    settle(model, lambda name: torch.float32 if kind == "float32" else torch.bfloat16)
    return model


def greedy(contender: Eager | Native, prompt: list[int], count: int) -> list[int]:
    cache, token = contender.start(prompt)
    tokens = [token]
    while len(tokens) < count:
        tokens.append(contender.read([tokens[-1]], cache))
    return tokens


def tokens_per_second(contender: Eager | Native, seconds: float) -> float:
    """After a prompt, for about `seconds`."""
    cache, token = contender.start(list(range(WARM_PROMPT)))
    for _ in range(3):
        token = contender.read([token], cache)
    begin, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds and cache.pos < CONTEXT - 1:
        token = contender.read([token], cache)
        count += 1
    return count / passed


def measure_decode(depth: int, options: argparse.Namespace) -> None:
    kinds = ("float32", "bfloat16", "int8")
    models = {kind: in_precision(depth, kind) for kind in kinds}
    native = {kind: Native(model, options.threads) for kind, model in models.items()}
    eager = {kind: Eager(models[kind], options.threads) for kind in kinds[:2]}
    same = greedy(eager["float32"], list(range(40)), 24) == greedy(native["float32"], list(range(40)), 24)
    core = native["float32"].stepper.core
    memory = Arena(PROBE).store(torch.ones(PROBE // 4), torch.float32)

    def probe() -> float:
        return max(core.read_speed(memory.data_ptr(), memory.numel()) for _ in range(2))

    results: dict[str, list[tuple[float, float]]] = {}  # (tok/s, bytes/s that the probe read around it)
    contenders = {**{f"native {k}": c for k, c in native.items()}, **{f"eager {k}": c for k, c in eager.items()}}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            before = probe()
            speed = tokens_per_second(contender, options.seconds)
            results.setdefault(name, []).append((speed, (before + probe()) / 2))
    print(f"d{depth}: greedy tokens in float32 {'equal' if same else 'DIFFER'}; {core.kernels}, "
          f"{options.threads} threads")
    base = [speed for speed, _ in results["eager float32"]]
    for name, rows in results.items():
        kind = name.split()[1]
        size = native[kind].stepper.core.bytes_per_step
        peer = [speed for speed, _ in results.get(f"eager {kind}", results["eager float32"])]
        print(f"  {name:16} {statistics.median(s for s, _ in rows):8.1f} tok/s  "
              f"{100 * statistics.median(size * s / p for s, p in rows):5.1f} % of the probe "
              f"({statistics.median(p for _, p in rows) / 1e9:.0f} GB/s)  "
              f"{statistics.median(s / e for (s, _), e in zip(rows, base, strict=True)):6.2f} x eager float32  "
              f"{statistics.median(s / e for (s, _), e in zip(rows, peer, strict=True)):6.2f} x eager of its precision")
    measure_first_token(native, eager, options)
    if LLAMA:
        measure_llama(models, native, options)


def measure_llama(models: dict[str, GPT], native: dict[str, Native], options: argparse.Namespace) -> None:
    """Precision by precision, in turn: a model of as many bytes in llama.cpp."""
    prompt = [(7 * i) % VOCAB for i in range(options.prompt)]
    for kind, own in native.items():
        c = models[kind].config
        peer = Peer(kind=kind, depth=c.n_layer, width=c.n_embd, heads=c.n_head, vocab=VOCAB, context=CONTEXT,
                    threads=options.threads)
        size, rows = own.stepper.core.bytes_per_step, []
        for _ in range(options.rounds):
            time.sleep(PAUSE)
            theirs = peer.measure(WARM_PROMPT, options.seconds)
            time.sleep(PAUSE)
            speed = tokens_per_second(own, options.seconds)
            begin = time.perf_counter()
            own.start(prompt)
            passed = time.perf_counter() - begin
            time.sleep(PAUSE)
            rows.append((speed, theirs["speed"], passed, peer.measure(options.prompt, 0)["first"]))
        peer.close()
        ratio = statistics.median(r[0] / r[1] for r in rows)
        own_speed, speed, own_first, first = (statistics.median(r[i] for r in rows) for i in range(4))
        print(f"  llama.cpp {kind}, {peer.bytes / size:.3f} x our bytes: native {own_speed:.1f} tok/s, llama.cpp "
              f"{speed:.1f}: {ratio:.2f} x, {ratio * size / peer.bytes:.2f} x at equal bytes; first token after "
              f"{options.prompt}: {1000 * own_first:.0f} ms, {1000 * first:.0f} ms: "
              f"{statistics.median(r[2] / r[3] for r in rows):.2f} x")


def measure_first_token(native: dict[str, Native], eager: dict[str, Eager], options: argparse.Namespace) -> None:
    prompt = [(7 * i) % VOCAB for i in range(options.prompt)]

    def seconds(contender: Eager | Native) -> float:
        begin = time.perf_counter()
        contender.start(prompt)
        return time.perf_counter() - begin

    for kind, own in native.items():
        peer = eager.get(kind, eager["float32"])
        rows = [(seconds(own), seconds(peer)) for _ in range(options.rounds)]
        print(f"  first token after {options.prompt}, {kind}: {1000 * statistics.median(a for a, _ in rows):.0f} ms, "
              f"eager {1000 * statistics.median(b for _, b in rows):.0f} ms: "
              f"{statistics.median(a / b for a, b in rows):.2f} x")


def measure_load(depth: int, options: argparse.Namespace) -> None:
    from engine.inference.chat import load_chat
    from engine.train.checkpoint import save_checkpoint

    with tempfile.TemporaryDirectory() as scratch:
        base, folder = Path(scratch), Path(scratch) / "chatsft_checkpoints" / f"d{depth}"
        tokenizer, model = _tokenizer(), random_model(depth)
        tokenizer.save(base / "tokenizer")
        save_checkpoint(folder, 1, source="sft", model=model.state_dict(), tokenizer_sha256=tokenizer.sha256(),
                        meta={"step": 1, "model_config": model.config.to_dict()})
        file = folder / "model_000001.pt"
        del model

        def forget() -> None:
            """Let the system drop what it holds of the file, as after a fresh start."""
            with open(file, "rb") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        cases = [(dtype, cold) for dtype in ("float32", "auto", "int8") for cold in (True, False)]
        for dtype, cold in cases if hasattr(os, "posix_fadvise") else cases[1::2]:
            rows = []
            for _ in range(options.rounds):
                if cold:
                    forget()
                begin = time.perf_counter()
                file.read_bytes()
                middle = time.perf_counter()
                if cold:
                    forget()
                start = time.perf_counter()
                load_chat(folder, 1, base / "tokenizer", "cpu", dtype)
                rows.append((time.perf_counter() - start, middle - begin))
            state = "from disk" if cold else "from the page cache"
            print(f"d{depth} load {dtype} {state}: {statistics.median(a for a, _ in rows):.2f} s for "
                  f"{file.stat().st_size / 1e9:.2f} GB, which takes {statistics.median(b for _, b in rows):.2f} s "
                  f"to read: {statistics.median(a / b for a, b in rows):.1f} x")


def _tokenizer() -> Tokenizer:
    """VOCAB tokens that mean nothing."""
    ranks = {bytes([i]): i for i in range(256)}
    first = VOCAB - len(SPECIAL_TOKENS)
    ranks |= {bytes([i >> 8, i & 255, 0]): i for i in range(256, first)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, ranks, {name: first + i for i, name in enumerate(SPECIAL_TOKENS)}))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, nargs="*", default=[4, 12])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=decode_threads())
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--load", action="store_true")
    options = parser.parse_args()
    for depth in options.depth:
        (measure_load if options.load else measure_decode)(depth, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())

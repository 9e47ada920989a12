"""How to decode one token at a time on this CPU: with how many threads, and in which precision. Measured, not guessed.

Neither the processor's name nor the model's size tells. Half the bytes help once weights come from memory, where the
CPU multiplies bfloat16 at all. More threads help large matrices, but they wait for each other after every product:
beside a training run on the same two cores, two threads make a small model thirty times slower than one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil
import torch
import torch.nn.functional as F

from engine.inference.kv_cache import KVCache
from engine.machine import cores
from engine.model.gpt import GPT

_CLEARLY = 0.8        # to be chosen over the plain way, another must take less than this share of its time
_ROUNDS = 3           # every time: one lucky moment on a busy machine proves nothing
_MEASURE_FOR = 0.02   # seconds


def tune(model: GPT, dtype: torch.dtype | None) -> torch.dtype:
    """Set torch's number of threads for decoding with a float32 `model`; return `dtype`, or the faster precision.

    The plain way is one thread, and float32, whose answers are those that were evaluated. LLMCONSOLE_THREADS decides
    the threads where it is set; else they are the physical cores that this process may use.
    """
    with torch.inference_mode():
        limit = int(os.environ.get("LLMCONSOLE_THREADS", 0))
        torch.set_num_threads(limit or 1)
        many = min(psutil.cpu_count(logical=False) or 1, cores())
        step = _decode_step(model)
        if not limit and many > 1 and _clearly_faster(lambda: _seconds(step, many), lambda: _seconds(step, 1)):
            torch.set_num_threads(many)
        if dtype is None:
            low, full = _products(model, torch.bfloat16), _products(model, torch.float32)
            dtype = torch.bfloat16 if _clearly_faster(lambda: _seconds(low), lambda: _seconds(full)) else torch.float32
    return dtype


def _clearly_faster(other: Callable[[], float], plain: Callable[[], float]) -> bool:
    return all(other() < _CLEARLY * plain() for _ in range(_ROUNDS))


def _decode_step(model: GPT) -> Callable[[], None]:
    """One token through the whole model, as decoding does it."""
    config = model.config
    cache = KVCache(1, config.n_kv_head, 1, config.head_dim, config.n_layer, dtype=model.dtype)
    token = torch.zeros(1, 1, dtype=torch.long)

    def step() -> None:
        cache.reset()
        model(token, kv_cache=cache, last_only=True)

    return step


def _products(model: GPT, dtype: torch.dtype) -> Callable[[], None]:
    """One token's matrix products in `dtype`: the first block's as many times as there are blocks, and lm_head's."""
    block = [p.to(dtype) for name, p in model.named_parameters() if name.startswith("transformer.h.0.")]
    matrices = [*block * model.config.n_layer, model.lm_head.weight.to(dtype)]
    pairs = [(torch.ones(1, m.shape[1], dtype=dtype), m) for m in matrices]

    def step() -> None:
        for row, matrix in pairs:
            F.linear(row, matrix)

    return step


def _seconds(step: Callable[[], None], threads: int = 0) -> float:
    """Mean time of `step`, after a first call that sets things up."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    step()
    begin, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < _MEASURE_FOR:
        step()
        count += 1
    torch.set_num_threads(before)
    return passed / count

"""The model's decode step on a CPU without PyTorch: our Rust step, on the same weights and the same caches.

PyTorch multiplies a matrix with one row at a fifth of the speed of memory; the native step reads weights about as fast
as memory gives them. A prompt is read natively too where that beats PyTorch, whose float32 products use half the width
of AMD's AVX-512, and which knows nothing of last positions; elsewhere, and for several rows at once, it is PyTorch's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor

from engine.device import cpu_flags
from engine.inference.arena import tensors_of
from engine.inference.kv_cache import KVCache
from engine.inference.stepper import ShouldStop, TorchStepper, never, refresh_state
from engine.machine import cores
from engine.model.config import windows
from engine.model.gpt import GPT
from rustbpe import CpuStep

MOST_ROWS, MOST_TOKENS = CpuStep.MOST_ROWS, CpuStep.MOST_TOKENS
_FEW_STEPS = 2, 4  # native steps of MOST_ROWS tokens that are faster than a native prompt, and one by PyTorch
_KINDS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "int8"}
_LAYER_NUMBERS = ("resid_lambdas", "x0_lambdas", "bigram_lambdas")
_NUMBERS = ("smear_lambda", "backout_lambda")
_NO_WINDOW = 1 << 40
_FEW = 4  # threads that are not worth a measurement


class NotNative(ValueError):
    """The native step cannot take this model; the text says why, and PyTorch can."""


@dataclass(frozen=True)
class _Where:
    """Addresses of keys and values in a cache, bytes from row to row, elements from layer to layer and head to head."""

    of: Tensor  # the cache's keys: it may get others
    k: int
    v: int
    row: int
    layer_stride: int
    head_stride: int


class NativeStepper:
    """Reads single tokens of up to MOST_ROWS rows natively, and one row's prompt; all else with PyTorch.

    One thread at a time. `kernels` names an instruction set; None takes the best one.
    """

    def __init__(self, model: GPT, threads: int | None = None, kernels: str | None = None) -> None:
        _check(model)
        self.model, self._torch = model, TorchStepper(model)
        tensors = dict(tensors_of(model))
        rotary = {name: tensors.pop(name).float().squeeze(1).contiguous() for name in ("cos", "sin")}
        numbers = _numbers(model, {name: tensors.pop(name) for name in (*_LAYER_NUMBERS, *_NUMBERS) if name in tensors})
        held = {**tensors, **rotary}
        self.threads = threads or decode_threads()
        self._prefill_threads = max(torch.get_num_threads(), self.threads)
        limits = [_NO_WINDOW if w is None else w for w in windows(model.config, model.architecture)]
        try:
            places = {name: _place(name, tensor) for name, tensor in held.items()}
            self.core = CpuStep(places, numbers, limits, self.threads, held, kernels)
        except ValueError as error:
            raise NotNative(str(error)) from error
        self._reads_prompts = self.core.kernels.startswith("avx512") and "amx_bf16" not in cpu_flags()
        self._short = _FEW_STEPS[not self._reads_prompts] * MOST_ROWS
        logits = torch.empty(MOST_ROWS, model.config.vocab_size)
        self._address, self._some = logits.data_ptr(), [logits[:count] for count in range(MOST_ROWS + 1)]
        self._bf16 = model.dtype == torch.bfloat16
        self._places: WeakKeyDictionary[KVCache, _Where] = WeakKeyDictionary()
        self._pairs = model.architecture.smear or model.architecture.bigram

    def cache(self, max_len: int, batch_size: int = 1) -> KVCache:
        return self._torch.cache(max_len, batch_size)

    def read(self, rows: Sequence[Sequence[int]], cache: KVCache, should_stop: ShouldStop = never) -> Tensor | None:
        """Token ids, B rows of one length, into a cache of B rows: logits (B, V), or None if asked to stop."""
        if len(rows[0]) == 1 and len(rows) <= MOST_ROWS:
            logits = self._step([(ids[0], cache, i) for i, ids in enumerate(rows)], len(rows))
            cache.advance(1)
            cache.newest = [ids[0] for ids in rows]
            return None if should_stop() else logits
        if len(rows) == 1 and len(rows[0]) <= self._short:
            return self._read_short(rows[0], cache, should_stop)
        if len(rows) == 1 and self._reads_prompts:
            return self._read_long(rows[0], cache, should_stop)
        with _torch_threads(self._prefill_threads):
            refresh_state(self.model, cache)
            return self._torch.read(rows, cache, should_stop)

    def step(self, tokens: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """tokens[i] into caches[i], each of one row and at its own position: logits (len(tokens), V)."""
        parts = []
        for at in range(0, len(tokens), MOST_ROWS):
            some = list(zip(tokens[at : at + MOST_ROWS], caches[at : at + MOST_ROWS], strict=True))
            parts.append(self._step([(token, cache, 0) for token, cache in some], len(some)))
            for token, cache in some:
                cache.advance(1)
                cache.newest = [token]
            if len(tokens) > MOST_ROWS:
                parts[-1] = parts[-1].clone()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def score(self, ids: Sequence[int], cache: KVCache) -> Tensor:
        """The same for neighbouring tokens of one row, with the logits (len(ids), V) after each of them."""
        parts = []
        for at in range(0, len(ids), MOST_ROWS):
            some = ids[at : at + MOST_ROWS]
            parts.append(self._step([(token, cache, 0) for token in some], len(some)).clone())
            cache.advance(len(some))
            cache.newest = [some[-1]]
        return torch.cat(parts)

    def _read_short(self, ids: Sequence[int], cache: KVCache, should_stop: ShouldStop) -> Tensor | None:
        """Neighbouring tokens of one row, several in a step, since each step reads all weights."""
        for at in range(0, len(ids), MOST_ROWS):
            some = ids[at : at + MOST_ROWS]
            last = at + MOST_ROWS >= len(ids)
            logits = self._step([(token, cache, 0) for token in some], 1 if last else 0)
            cache.advance(len(some))
            cache.newest = [some[-1]]
            if should_stop():
                return None
        return logits

    def _read_long(self, ids: Sequence[int], cache: KVCache, should_stop: ShouldStop) -> Tensor | None:
        """Neighbouring tokens of one row as products of whole matrices."""
        where = self._where(cache)
        for at in range(0, len(ids), MOST_TOKENS):
            some = ids[at : at + MOST_TOKENS]
            self._check_room(cache, cache.pos + len(some))
            before = cache.newest[0] if self._pairs and cache.pos else -1
            row = (some[0], cache.pos, where.k, where.v, where.layer_stride, where.head_stride, before)
            self.core.read(some, row, self._bf16, self._address)
            cache.advance(len(some))
            cache.newest = [some[-1]]
            if should_stop():
                return None
        return self._some[1]

    @staticmethod
    def _check_room(cache: KVCache, needed: int) -> None:
        if needed > cache.max_len:
            raise ValueError(f"the cache holds {cache.max_len} tokens, {needed} are needed")

    def _step(self, rows: Sequence[tuple[int, KVCache, int]], wanted: int) -> Tensor:
        """One native step of (token, cache, row of that cache); entries with one cache and row are neighbours.

        Logits (wanted, V) of the last `wanted` entries.
        """
        entries, before, place, last = [], -1, 0, (-1, -1)
        for token, cache, row in rows:
            place = place + 1 if last == (id(cache), row) else 0  # tokens of this step that the row has got already
            last, position = (id(cache), row), cache.pos + place
            self._check_room(cache, position + 1)
            if not self._pairs or not position:
                before = -1
            elif not place:
                before = cache.newest[row]
            where = self._where(cache)
            entries.append((token, position, where.k + row * where.row, where.v + row * where.row, where.layer_stride,
                            where.head_stride, before))
            before = token
        self.core.step(entries, self._bf16, len(rows) - wanted, self._address)
        return self._some[wanted]

    def _where(self, cache: KVCache) -> _Where:
        """Addresses in a cache; asking a tensor for them takes longer than a small model's layer."""
        where = self._places.get(cache)
        if where is None or where.of is not cache.k:
            if cache.k.dtype != self.model.dtype:
                raise ValueError(f"the cache holds {cache.k.dtype}, the model {self.model.dtype}")
            layers, rows, heads, _, _ = cache.k.stride()
            row = rows * cache.k.element_size()
            where = _Where(cache.k, cache.k.data_ptr(), cache.v.data_ptr(), row, layers, heads)
            self._places[cache] = where
        return where


def quantize_into(weight: Tensor, numbers: Tensor, scales: Tensor) -> None:
    """weight (out, in) float32 -> numbers (out, in) int8 in [-127, 127] and scales (out,) float32, row by row.

    One core is left alone, as `settle` does.
    """
    (rows, cols), threads = weight.shape, max(decode_threads() - 1, 1)
    CpuStep.quantize(weight.data_ptr(), rows, cols, numbers.data_ptr(), scales.data_ptr(), threads)


def decode_threads() -> int:
    """LLMCONSOLE_THREADS, or the physical cores that this process may use: memory is what all of them share."""
    return int(os.environ.get("LLMCONSOLE_THREADS", 0)) or max(1, min(psutil.cpu_count(logical=False) or 1, cores()))


def tuned_stepper(model: GPT) -> NativeStepper:
    """A stepper with as many threads as help: memory is often fully used by fewer than all cores."""
    most = decode_threads()
    if os.environ.get("LLMCONSOLE_THREADS") or most <= _FEW:
        return NativeStepper(model, most)
    counts = [most >> halvings for halvings in range(most.bit_length()) if most >> halvings >= _FEW // 2]
    timed = [(_seconds_per_token(stepper), stepper) for stepper in (NativeStepper(model, count) for count in counts)]
    return min(timed, key=lambda pair: pair[0])[1]


def _seconds_per_token(stepper: NativeStepper) -> float:
    """The best of a few steps, after one that brings the threads up."""
    cache, times = stepper.cache(8), []
    for _ in range(8):
        begin = time.perf_counter()
        stepper.read([[0]], cache)
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _check(model: GPT) -> None:
    if model.device.type != "cpu":
        raise NotNative(f"the native step runs on the CPU, the model is on {model.device.type}")
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise NotNative(f"the native step keeps float32 or bfloat16 caches, not {model.dtype}")


def _place(name: str, tensor: Tensor) -> tuple[int, str, int, int]:
    """Address, kind of number, rows, columns."""
    if tensor.dtype not in _KINDS or not tensor.is_contiguous():
        raise NotNative(f"{name} is stored as {tensor.dtype}, which the native step does not read")
    rows, cols = (tensor.shape[0], 1) if tensor.dim() == 1 else tensor.shape
    return tensor.data_ptr(), _KINDS[tensor.dtype], rows, cols


def _numbers(model: GPT, scalars: dict[str, Tensor]) -> dict[str, float]:
    """Shape and constants by name; scalars of a layer as name.layer."""
    c, a = model.config, model.architecture
    numbers: dict[str, float] = {
        "n_layer": c.n_layer, "n_head": c.n_head, "n_kv_head": c.n_kv_head, "n_embd": c.n_embd,
        "context": c.sequence_len, "vocab_size": c.vocab_size, "softcap": a.softcap, "qk_scale": a.qk_scale,
        "gate_scale": a.gate_scale, "backout_layer": c.n_layer // 2}
    for name, values in scalars.items():
        if name in _NUMBERS:
            numbers[name] = values.tolist()[0]
        else:
            numbers |= {f"{name}.{i}": value for i, value in enumerate(values.tolist())}
    return numbers


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """More threads for products of many rows. Between them one is best: idle ones would spin beside the native step."""
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)

"""llama.cpp beside our decode step: a process of its own that another Python with `llama_cpp` and `gguf` runs.

    python llama_peer.py '{"kind": "int8", "depth": 12, "width": 768, "heads": 6, "vocab": 32768, "context": 2048, ...}'

llama.cpp does not know nanochat's architecture. It gets a LLaMA graph of the same width, depth, heads and vocabulary,
with an MLP of three matrices of 8/3 the width, which have as many weights as two of four times the width, all random.
The process says how many bytes of weights a step reads, then answers each line {"prompt": tokens, "seconds": s} with
{"first": seconds until the token behind the prompt, "speed": tokens per second for about s seconds after that}.

`Peer` is the other end, in the benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PYTHON = os.environ.get("LLMCONSOLE_LLAMA_PYTHON")
KINDS = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}


class Peer:
    """One model in llama.cpp."""

    def __init__(self, **shape: Any) -> None:
        assert PYTHON is not None
        self._process = subprocess.Popen([PYTHON, __file__, json.dumps(shape)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.bytes: int = self._answer()["bytes"]

    def measure(self, prompt: int, seconds: float) -> dict[str, float]:
        assert self._process.stdin is not None
        print(json.dumps({"prompt": prompt, "seconds": seconds}), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp in {PYTHON} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate(timeout=30)


def write_model(path: Path, job: dict[str, Any]) -> int:
    """A GGUF file; returns the bytes of the matrices that a step reads."""
    import gguf
    import numpy as np
    from gguf.quants import quantize

    width, kind = job["width"], gguf.GGMLQuantizationType[KINDS[job["kind"]]]
    hidden = round(width * 8 / 3 / 32) * 32  # Q8_0 takes blocks of 32
    writer, random, total = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0), 0
    writer.add_block_count(job["depth"])
    writer.add_context_length(job["context"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(job["heads"])
    writer.add_head_count_kv(job["heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(job["vocab"])
    writer.add_tokenizer_model("none")

    def matrix(name: str, rows: int, cols: int) -> int:
        values = random.standard_normal((rows, cols), dtype=np.float32) * cols**-0.5
        data = quantize(values, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        return data.nbytes

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))

    matrix("token_embd", job["vocab"], width)
    for i in range(job["depth"]):
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
        total += sum(matrix(f"blk.{i}.attn_{name}", width, width) for name in ("q", "k", "v", "output"))
        total += sum(matrix(f"blk.{i}.ffn_{name}", hidden, width) for name in ("gate", "up"))
        total += matrix(f"blk.{i}.ffn_down", width, hidden)
    norm("output_norm")
    total += matrix("output", job["vocab"], width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return total


class Model:
    """A GGUF file in llama.cpp, greedy, without its Python class, which does more than is needed for every token."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        import llama_cpp

        self.lib, self.vocab = llama_cpp, job["vocab"]
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), self.lib.llama_model_default_params())
        options = self.lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = job["context"], 512, 512
        options.n_threads = options.n_threads_batch = job["threads"]
        self.context = self.lib.llama_init_from_model(self.model, options)

    def read(self, ids: list[int]) -> int:
        import numpy as np

        tokens = (self.lib.llama_token * len(ids))(*ids)  # the batch points to it
        if self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama_decode failed")
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())

    def measure(self, prompt: int, seconds: float) -> dict[str, float]:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        begin = time.perf_counter()
        token = self.read(list(range(prompt)))
        first = time.perf_counter() - begin
        for _ in range(3):
            token = self.read([token])
        begin, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - begin) < seconds:
            token = self.read([token])
            count += 1
        return {"first": first, "speed": count / passed if count else 0.0}


def main() -> int:
    job = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        total = write_model(path, job)
        model = Model(path, job)
        print(json.dumps({"bytes": total}), flush=True)
        for line in sys.stdin:
            print(json.dumps(model.measure(**json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

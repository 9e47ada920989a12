"""What bfloat16 and int8 weights cost a trained model: bits per byte of its native decode step, beside float32.

    python tests/bench/bench_quality.py --base NANOCHAT_BASE_DIR [--source base] [--tokens 8192] [--text FILE]

The text is the base directory's validation shard (the last one), or a file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.evals.bpb import bits_per_byte
from engine.inference.backend import prepare
from engine.inference.quality import stepped_bits_per_byte
from engine.tokenizer.bpe import Tokenizer
from engine.train.checkpoint import load_model, resolve


def text_of(base: Path, file: Path | None) -> str:
    if file is not None:
        return file.read_text()
    import pyarrow.parquet as pq

    shards = sorted(base.glob("base_data*/*.parquet"))
    return "\n".join(pq.read_table(shards[-1], columns=["text"])["text"].to_pylist())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, default=Path(os.environ.get("NANOCHAT_BASE_DIR", ".")))
    parser.add_argument("--source", default="base")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_directory(options.base / "tokenizer")
    folder, step = resolve(options.base, options.source)
    token_bytes = torch.tensor(tokenizer.token_bytes_lengths(), dtype=torch.int64)
    ids = tokenizer.encode(text_of(options.base, options.text)[: 8 * options.tokens])
    reference = None
    for dtype in ("float32", "bfloat16", "int8"):
        model, _ = load_model(folder, step)
        T = min(model.config.sequence_len, len(ids) - 1)
        starts = range(0, min(options.tokens, len(ids) - 1) - T + 1, T)
        rows = torch.tensor([ids[at : at + T + 1] for at in starts])
        batches = [(rows[:, :-1], rows[:, 1:])]
        if reference is None:
            reference = bits_per_byte(model, batches, token_bytes)
            print(f"{folder.name} step {step}, {rows[:, 1:].numel():,} tokens; PyTorch float32: {reference:.5f} bpb")
        begin = time.perf_counter()
        bpb = stepped_bits_per_byte(prepare(model, dtype, "native").stepper, batches, token_bytes)
        print(f"  {dtype:8} {bpb:.5f} bpb, {100 * (bpb / reference - 1):+.3f} %, {time.perf_counter() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

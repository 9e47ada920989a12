"""The text loader beside nanochat's two, written again from their description with tiktoken and Python lists.

    python tests/bench/bench_loader.py [--corpus FILE] [--mb 40] [--rounds 3] [--threads 2]

Same shards, same tokenizer, same rows; every measurement is a process of its own, in turn, and all of a kind must make
the same batches. MB/s are of the text that was read, so what best fit cuts off counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_tokenizer import PATTERN, _assemble, _median, _ratios, _read

B, T = 32, 2048
KINDS = ("stream", "best_fit")


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
        return 0
    parser = argparse.ArgumentParser()
    given = os.environ.get("LLMCONSOLE_BENCH_CORPUS")
    parser.add_argument("--corpus", type=Path, default=Path(given) if given else None)
    parser.add_argument("--mb", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.corpus or _assemble(folder / "corpus.txt", options.mb * 2_000_000), options.mb)
        print(f"{options.mb} MB of text in zstd row groups of 1,024, B {B}, T {T}, {options.threads} encoding threads, "
              f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        same = [contest(folder, kind, options) for kind in KINDS]
    return int(not all(same))


def prepare(folder: Path, corpus: Path, mb: int) -> None:
    """Two shards and a tokenizer of 32,768 tokens learned from them."""
    from engine.data.shards import write_shard
    from engine.tokenizer.bpe import Tokenizer

    documents = _read(str(corpus), mb)
    half = len(documents) // 2
    write_shard(folder / "shard_00000.parquet", documents[:half])
    write_shard(folder / "shard_00001.parquet", documents[half:])
    Tokenizer.train_from_iterator(documents, 32_768).save(folder / "tokenizer")


def contest(folder: Path, kind: str, options: argparse.Namespace) -> bool:
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for who, results in rows.items():
            job = {"folder": str(folder), "who": who, "kind": kind, "threads": options.threads,
                   "batches": round(options.mb * 2.6 * (0.6 if kind == "best_fit" else 1))}
            words = [sys.executable, __file__, "--child", json.dumps(job)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{job} failed:\n{done.stderr}")
            results.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\n{kind}")
    for who, results in rows.items():
        print(f"  {who:7} {_median(results, 'mb_s'):7.1f} MB/s  {_median(results, 'tokens_s') / 1e6:6.2f} M tokens/s  "
              f"peak RSS {_median(results, 'rss'):5.0f} MB")
    same = len({row["digest"] for results in rows.values() for row in results}) == 1
    print(f"  ours is {_ratios(rows['ours'], rows['theirs'], 'seconds')} faster; batches "
          f"{'identical' if same else 'NOT THE SAME'}")
    return same


def measure(folder: str, who: str, kind: str, threads: int, batches: int) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from engine.tokenizer.bpe import Tokenizer

    files = sorted(Path(folder).glob("*.parquet"))
    tokenizer = Tokenizer.from_directory(Path(folder) / "tokenizer")
    reads = {"bytes": 0}
    read_row_group = pq.ParquetFile.read_row_group

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        table = read_row_group(self, *args, **named)
        reads["bytes"] += table.nbytes
        return table

    pq.ParquetFile.read_row_group = counted  # type: ignore[method-assign]
    loader = _ours(files, tokenizer, kind, threads) if who == "ours" else _theirs(files, tokenizer, kind, threads)
    seen, started = [], time.perf_counter()
    for x, y in loader:
        seen.append((x, y))
        if len(seen) == batches:
            break
    seconds = time.perf_counter() - started
    digest = hashlib.sha256()
    for x, y in seen:
        digest.update(x.numpy().tobytes() + y.numpy().tobytes())
    from bench_tokenizer import _rss

    return {"seconds": seconds, "mb_s": reads["bytes"] / 1e6 / seconds, "tokens_s": batches * B * T / seconds,
            "rss": _rss(), "digest": digest.hexdigest()}


def _ours(files: list[Path], tokenizer: Any, kind: str, threads: int) -> Iterator[Any]:
    from engine.data import row_groups
    from engine.data.loader import TextBatches

    row_groups.MOST_THREADS = threads
    return iter(TextBatches(files, tokenizer, B, T, packing=kind))


def _theirs(files: list[Path], tokenizer: Any, kind: str, threads: int) -> Iterator[Any]:
    """tiktoken on `threads` threads, 128 documents at a time, a bos put before each."""
    import pyarrow.parquet as pq
    import tiktoken

    words = tokenizer.vocabulary
    encoding = tiktoken.Encoding("bench", pat_str=PATTERN, mergeable_ranks=words.ranks, special_tokens=words.specials)
    bos = tokenizer.get_bos_token_id()

    def token_lists() -> Iterator[list[list[int]]]:
        while True:
            for path in files:
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    texts = file.read_row_group(group).column("text").to_pylist()
                    for at in range(0, len(texts), 128):
                        lists = encoding.encode_ordinary_batch(texts[at : at + 128], num_threads=threads)
                        for ids in lists:
                            ids.insert(0, bos)
                        yield lists

    return _their_stream(token_lists()) if kind == "stream" else _their_best_fit(token_lists())


def _their_stream(token_lists: Iterator[list[list[int]]]) -> Iterator[Any]:
    import torch

    tokens: deque[int] = deque()
    need = B * T + 1
    while True:
        while len(tokens) < need:
            for ids in next(token_lists):
                tokens.extend(ids)
        scratch = torch.tensor([tokens.popleft() for _ in range(need)], dtype=torch.int64)
        yield scratch[:-1].view(B, T), scratch[1:].view(B, T)


def _their_best_fit(token_lists: Iterator[list[list[int]]], buffer_size: int = 1000) -> Iterator[Any]:
    import torch

    waiting: list[list[int]] = []
    while True:
        rows = torch.empty((B, T + 1), dtype=torch.int64)
        for row in range(B):
            at = 0
            while at < T + 1:
                while len(waiting) < buffer_size:
                    waiting.extend(next(token_lists))
                best, best_len = -1, 0
                for i, ids in enumerate(waiting):
                    if best_len < len(ids) <= T + 1 - at:
                        best, best_len = i, len(ids)
                if best < 0:
                    best = min(range(len(waiting)), key=lambda i: len(waiting[i]))
                ids = waiting.pop(best)[: T + 1 - at]
                rows[row, at : at + len(ids)] = torch.tensor(ids, dtype=torch.int64)
                at += len(ids)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


if __name__ == "__main__":
    sys.exit(main())

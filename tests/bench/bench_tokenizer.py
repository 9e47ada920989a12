"""Training and encoding beside other tokenizers, interleaved, on real text: wall time, memory, and the same results.

    python tests/bench/bench_tokenizer.py [--big] [--corpus FILE] [--mb 160] [--rounds 3] [--vocab 32768 65536]
                                          [--threads 2]

About six minutes on two quiet cores; `--big` adds a round with 500 MB.

The corpus is text with \\x1e between documents; without one, it is put together from what this machine has: Python
sources, documentation, manual pages. The peers, rustbpe 0.1.0 and gigatoken 0.10.0, cannot live in one environment with
ours (the same module name), so LLMCONSOLE_PEERS_PYTHON names a Python that has them and tiktoken. Without it only ours
is measured. Every measurement is a process of its own, one after the other in turn.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
           r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
SEPARATOR = "\x1e"
PEERS = os.environ.get("LLMCONSOLE_PEERS_PYTHON")
SUFFIXES = {".py", ".txt", ".md", ".rst", ".html", ".gz", ".c", ".h", ".js", ".pm", ".pod"}
DOCUMENT = 4500  # characters: about what a web page has
WARM_ROUNDS = 5
BIG_MB = 500


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        job = json.loads(sys.argv[2])
        print(json.dumps(JOBS[job["job"]](**job["with"])))
        return 0
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or _assemble(Path(folder) / "corpus.txt", options.mb * 1_000_000)
        print(f"corpus {corpus.stat().st_size / 1e6:.0f} MB, {options.threads} threads, {os.cpu_count()} cores, load "
              f"{os.getloadavg()[0]:.1f}; " + (f"peers in {PEERS}" if PEERS else
                                               "no peers: LLMCONSOLE_PEERS_PYTHON is not set"))
        same = [_train(corpus, vocab, options.threads, options.rounds if place == 0 else 1)
                for place, vocab in enumerate(options.vocab)]
        _scale(corpus, options)
        same.append(_encode(corpus, Path(folder), options))
        _worst(Path(folder))
        if options.big:
            big = _assemble(Path(folder) / "big.txt", BIG_MB * 1_000_000)
            print(f"\n{big.stat().st_size / 1e6:.0f} MB")
            same.append(_train(big, options.vocab[0], options.threads, 1, slow=False))
    return int(not all(same))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    given = os.environ.get("LLMCONSOLE_BENCH_CORPUS")
    parser.add_argument("--corpus", type=Path, default=Path(given) if given else None)
    parser.add_argument("--mb", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_768, 65_536])
    parser.add_argument("--big", action="store_true", help=f"also train on {BIG_MB} MB")
    parser.add_argument("--encode-mb", type=int, default=40)
    return parser.parse_args()


# ---- what is measured, each in a process of its own


def train_ours(corpus: str, vocab: int, threads: int) -> dict[str, Any]:
    import rustbpe

    documents = _read(corpus)
    seen: list[tuple[float, int]] = []
    before, started = _rss(), time.perf_counter()
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(documents), vocab, pattern=PATTERN, threads=threads,
                                  progress=lambda *now: seen.append((time.perf_counter(), now[2])))
    wall = time.perf_counter() - started
    counting = [at for at, merges in seen if merges == 0]
    return {"wall": wall, "rss": _rss(), "text_rss": before, "merges": _digest(tokenizer.get_mergeable_ranks()),
            "count": counting[-2] - started, "lists": counting[-1] - counting[-2], "merge": seen[-1][0] - counting[-1]}


def train_ours_file(corpus: str, vocab: int, threads: int) -> dict[str, Any]:
    """From the file itself, as gigatoken: what stands between documents is text here."""
    import rustbpe

    started = time.perf_counter()
    rustbpe.Tokenizer().train_from_files([corpus], vocab, PATTERN, threads)
    return {"wall": time.perf_counter() - started, "rss": _rss(), "text_rss": 0.0}


def train_huggingface(corpus: str, vocab: int, threads: int) -> dict[str, Any]:
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    documents = _read(corpus)
    before, started = _rss(), time.perf_counter()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return {"wall": time.perf_counter() - started, "rss": _rss(), "text_rss": before}


def train_rustbpe(corpus: str, vocab: int, threads: int) -> dict[str, Any]:
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    import rustbpe

    documents = _read(corpus)
    before, started = _rss(), time.perf_counter()
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(documents), vocab, pattern=PATTERN)
    wall = time.perf_counter() - started
    return {"wall": wall, "rss": _rss(), "text_rss": before, "merges": _digest(tokenizer.get_mergeable_ranks())}


def train_gigatoken(corpus: str, vocab: int, threads: int) -> dict[str, Any]:
    """Reads the file itself and splits as GPT-2 does, so its merges are others."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    import gigatoken

    started = time.perf_counter()
    gigatoken.train_bpe(gigatoken.TextFileSource([corpus], separator=SEPARATOR), vocab, [])
    return {"wall": time.perf_counter() - started, "rss": _rss(), "text_rss": 0.0}


def learn_ranks(corpus: str, vocab: int, to: str) -> dict[str, Any]:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(_read(corpus), vocab, pattern=PATTERN)
    lines = (f"{base64.b64encode(token).decode()} {i}\n" for token, i in tokenizer.get_mergeable_ranks())
    Path(to).write_text("".join(lines))
    return {}


def encode_ours(corpus: str, ranks: str, mb: int, threads: int) -> dict[str, Any]:
    import rustbpe

    documents = _read(corpus, mb)
    tokenizer = rustbpe.Tokenizer.from_ranks(PATTERN, list(_ranks(ranks).items()))
    speeds, (ids, offsets) = _speeds(documents, lambda: tokenizer.encode_flat(documents, threads=threads))
    return {**speeds, "ids": _hash([ids[a:b] for a, b in pairwise(offsets)])}


def encode_one_letter(ranks: str, mb: int) -> dict[str, Any]:
    """A document of one letter: the worst that a text can do to an encoder."""
    import rustbpe

    tokenizer, text = rustbpe.Tokenizer.from_ranks(PATTERN, list(_ranks(ranks).items())), "a" * (mb * 1_000_000)
    started = time.perf_counter()
    tokenizer.encode_flat([text], threads=1)
    return {"wall": time.perf_counter() - started, "rss": _rss()}


def encode_tiktoken(corpus: str, ranks: str, mb: int, threads: int) -> dict[str, Any]:
    import numpy as np
    import tiktoken

    documents = _read(corpus, mb)
    encoding = tiktoken.Encoding("bench", pat_str=PATTERN, mergeable_ranks=_ranks(ranks), special_tokens={})
    if threads == 1:
        speeds, rows = _speeds(documents, lambda: [encoding.encode_ordinary(text) for text in documents], 1)
    else:
        speeds, rows = _speeds(documents, lambda: encoding.encode_ordinary_batch(documents, num_threads=threads), 1)
    return {**speeds, "ids": _hash([np.array(row, dtype=np.uint32) for row in rows])}


def encode_gigatoken(corpus: str, ranks: str, mb: int, threads: int) -> dict[str, Any]:
    """With its cl100k splitter: digits in threes, so its ids are others."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    import gigatoken

    documents = _read(corpus, mb)
    tokenizer = gigatoken.Tokenizer.from_tiktoken(ranks, pretokenizer="cl100k")
    return _speeds(documents, lambda: tokenizer.encode_batch(documents, parallel=threads > 1))[0]


JOBS = {f.__name__: f for f in (train_ours, train_ours_file, train_rustbpe, train_gigatoken, train_huggingface,
                                learn_ranks, encode_ours, encode_tiktoken, encode_gigatoken, encode_one_letter)}
OURS = {"train_ours", "train_ours_file", "learn_ranks", "encode_ours", "encode_one_letter"}


def _speeds(documents: list[str], encode: Any, warm_rounds: int = WARM_ROUNDS) -> tuple[dict[str, float], Any]:
    """MB/s of the first pass, and the median of the next ones."""
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    speeds, result = [], None
    for _ in range(1 + warm_rounds):
        started = time.perf_counter()
        result = encode()
        speeds.append(megabytes / (time.perf_counter() - started))
    return {"cold": speeds[0], "warm": statistics.median(speeds[1:])}, result


def _read(corpus: str, mb: int | None = None) -> list[str]:
    """The documents, each a string of its own; one string of all would be four bytes a character."""
    documents, rest, left = [], b"", 1 << 62 if mb is None else mb * 1_000_000
    with open(corpus, "rb") as f:
        while left > 0 and (block := f.read(min(left, 1 << 20))):
            left -= len(block)
            *whole, rest = (rest + block).split(SEPARATOR.encode())
            documents += [document.decode() for document in whole]
    return documents


def _ranks(path: str) -> dict[bytes, int]:
    rows = (line.split() for line in Path(path).read_text().splitlines())
    return {base64.b64decode(token): int(i) for token, i in rows}


def _rss() -> float:
    """Peak so far, in MB. Not from getrusage where it can be had: that begins with what the parent had at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _digest(ranks: list[tuple[bytes, int]]) -> str:
    return hashlib.sha256(b"".join(len(token).to_bytes(4, "little") + token for token, _ in ranks)).hexdigest()


def _hash(rows: list[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "little") + row.tobytes())
    return digest.hexdigest()


# ---- rounds and ratios


def _run(job: str, **settings: Any) -> dict[str, Any] | None:
    """What a job in a process of its own measured; None, said once, when a peer cannot do it."""
    python = sys.executable if job in OURS else PEERS
    words = [str(python), str(Path(__file__).resolve()), "--child", json.dumps({"job": job, "with": settings})]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if job in OURS:
        raise SystemExit(f"{job} failed:\n{done.stderr}")
    print(f"  {job} failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return None


def _contest(jobs: list[str], rounds: int, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Results of every job, round by round; of a peer that fails, none."""
    results: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    for _ in range(rounds):
        for job in list(results):
            found = _run(job, **settings)
            if found is None:
                del results[job]
            else:
                results[job].append(found)
    return results


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def _ratios(rows: list[dict[str, Any]], others: list[dict[str, Any]], key: str, invert: bool = False) -> str:
    """Median of the rounds' ratios, and their spread."""
    ratios = [b[key] / a[key] if not invert else a[key] / b[key] for a, b in zip(rows, others, strict=True)]
    return f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f})"


def _train(corpus: Path, vocab: int, threads: int, rounds: int, slow: bool = True) -> bool:
    print(f"\ntraining, {vocab:,} tokens, {threads} threads, {rounds} rounds in turn")
    peers = ["train_rustbpe", "train_gigatoken"] if PEERS else []
    results = _contest(["train_ours", "train_ours_file", *peers], rounds, corpus=str(corpus), vocab=vocab,
                       threads=threads)
    if PEERS and slow and rounds > 1:
        results |= _contest(["train_huggingface"], 1, corpus=str(corpus), vocab=vocab, threads=threads)
    ours = results["train_ours"]
    for job, rows in results.items():
        ratio = "" if job in OURS else f"  ours is {_ratios(ours[: len(rows)], rows, 'wall')} faster"
        if job == "train_gigatoken":
            ratio += f", from the file {_ratios(results['train_ours_file'], rows, 'wall')}"
        print(f"  {job[6:]:12} wall {_median(rows, 'wall'):6.2f} s  peak RSS {_median(rows, 'rss'):5.0f} MB "
              f"(text alone {_median(rows, 'text_rss'):4.0f}){ratio}")
    phases = ", ".join(f"{phase} {_median(ours, phase):.2f}" for phase in ("count", "lists", "merge"))
    print(f"  ours, seconds: {phases}")
    if "train_rustbpe" not in results:
        return True
    same = len({row["merges"] for rows in results.values() for row in rows if "merges" in row}) == 1
    print(f"  merges of ours and rustbpe: {'identical' if same else 'NOT THE SAME'}")
    return same


def _worst(folder: Path) -> None:
    print("\na document of one letter")
    small, large = (_run("encode_one_letter", ranks=str(folder / "ranks.tiktoken"), mb=mb) for mb in (1, 10))
    if small and large:
        print(f"  1 MB {small['wall']:.3f} s, 10 MB {large['wall']:.3f} s ({large['wall'] / small['wall']:.1f}x; "
              f"peak RSS {large['rss']:.0f} MB)")


def _scale(corpus: Path, options: argparse.Namespace) -> None:
    print("\nphases by threads, seconds")
    for threads in sorted({1, 2, options.threads, os.cpu_count() or 1}):
        row = _run("train_ours", corpus=str(corpus), vocab=options.vocab[0], threads=threads) or {}
        print(f"  {threads:3} threads: " + ", ".join(f"{p} {row[p]:.2f}" for p in ("count", "lists", "merge", "wall")))


def _encode(corpus: Path, folder: Path, options: argparse.Namespace) -> bool:
    ranks = str(folder / "ranks.tiktoken")
    _run("learn_ranks", corpus=str(corpus), vocab=options.vocab[0], to=ranks)
    jobs = ["encode_ours", *(["encode_tiktoken", "encode_gigatoken"] if PEERS else [])]
    same = True
    for threads in sorted({1, options.threads}):
        results = _contest(jobs, options.rounds, corpus=str(corpus), ranks=ranks, mb=options.encode_mb, threads=threads)
        print(f"\nencoding, {options.encode_mb} MB, {threads} threads, MB/s")
        for job, rows in results.items():
            ours, ratio = results["encode_ours"], ""
            if job not in OURS:
                cold, warm = (_ratios(ours, rows, key, True) for key in ("cold", "warm"))
                ratio = f"  ours is {cold} cold, {warm} warm"
            print(f"  {job[7:]:10} cold {_median(rows, 'cold'):6.1f}  warm {_median(rows, 'warm'):6.1f}{ratio}")
        found = {row["ids"] for rows in results.values() for row in rows if "ids" in row}
        if "encode_tiktoken" in results:
            print(f"  ids of ours and tiktoken: {'identical' if len(found) == 1 else 'NOT THE SAME'}")
        same = same and len(found) == 1
    return same


# ---- text


def _assemble(path: Path, size: int) -> Path:
    """Real text of this machine, in an order that mixes the kinds."""
    with open(path, "w", encoding="utf-8", newline="") as out:
        for document in _documents():
            size -= out.write(document + SEPARATOR)
            if size <= 0:
                return path
    print(f"only {path.stat().st_size / 1e6:.0f} MB of text found on this machine")
    return path


def _documents() -> Iterator[str]:
    roots = [Path("/usr/share/doc"), Path("/usr/share/man"), Path("/usr/share"), Path(os.__file__).parent,
             *(Path(entry) for entry in sys.path if entry.endswith("-packages")), Path.home()]
    files = {file.resolve() for root in roots for file in root.rglob("*") if file.suffix in SUFFIXES and file.is_file()}
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: hashlib.md5(str(file).encode()).digest()):
        try:
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            text = data.decode().replace(SEPARATOR, " ")
        except (OSError, UnicodeDecodeError, EOFError):
            continue
        if len(text) > 200 and text[:2000] not in seen:
            seen.add(text[:2000])
            yield from (text[at : at + DOCUMENT] for at in range(0, len(text), DOCUMENT))


if __name__ == "__main__":
    sys.exit(main())

"""How well the tokenizer compresses each kind of text, beside GPT-2's and GPT-4's where those are on this disk."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from engine.context import StageContext, StageError
from engine.data.shards import documents, train_files, val_file
from engine.settings.data import TokEval
from engine.tokenizer import reference
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.samples import SAMPLES
from engine.tokenizer.store import TokenizerError

_SPLIT_CHARS = 500_000  # read this much of each split

Encode = Callable[[list[str]], list[list[int]]]


def run(config: TokEval, context: StageContext) -> None:
    """Print and report bytes per token by kind of text."""
    tokenizer = _load(context)
    present, missing = reference.available()
    if missing:
        context.log(f"not on this disk, so not compared: {', '.join(missing)}")
    encoders: dict[str, Encode] = {"ours": tokenizer.encode}
    encoders |= {name: encoding.encode_ordinary_batch for name, encoding in present.items()}
    kinds = _texts(context)
    context.log(_row("text", "bytes", *encoders))
    results: dict[str, dict[str, float]] = {}
    for done, (kind, texts) in enumerate(kinds.items(), start=1):
        _check_round_trip(tokenizer, kind, texts)
        results[kind] = {name: _bytes_per_token(encode, texts) for name, encode in encoders.items()}
        context.log(_row(kind, f"{_size(texts):,}", *(f"{value:.2f}" for value in results[kind].values())))
        context.progress(done, len(kinds), "texts")
        context.checkpoint_stop()
    context.events.evaluation(None, **{f"bytes_per_token_{kind}": row["ours"] for kind, row in results.items()})
    context.report("Tokenizer evaluation", _facts(tokenizer, results, missing))


def _load(context: StageContext) -> Tokenizer:
    folder = context.base_dir / "tokenizer"
    try:
        return Tokenizer.from_directory(folder)
    except (FileNotFoundError, TokenizerError) as error:
        raise StageError(f"no usable tokenizer in {folder}: {error}", "run tok_train first", "tokenizer") from None


def _texts(context: StageContext) -> dict[str, list[str]]:
    """The kinds of text, each as a list of documents: our data, Python's own source, and the built-in samples."""
    base = context.base_dir
    return {
        "train": _head(documents(train_files(base))),
        "val": _head(documents([val_file(base)])),
        "python": [inspect.getsource(textwrap)],
        **{kind: [text] for kind, text in SAMPLES.items()},
    }


def _head(texts: Iterable[str]) -> list[str]:
    """The first documents, _SPLIT_CHARS characters in all."""
    taken, chars = [], 0
    for text in texts:
        taken.append(text[: _SPLIT_CHARS - chars])
        chars += len(taken[-1])
        if chars >= _SPLIT_CHARS:
            break
    return taken


def _size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _bytes_per_token(encode: Encode, texts: list[str]) -> float:
    """Compression: more bytes per token is better. 0 for a text without tokens."""
    tokens = sum(map(len, encode(texts)))
    return _size(texts) / tokens if tokens else 0.0


def _check_round_trip(tokenizer: Tokenizer, kind: str, texts: list[str]) -> None:
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        if tokenizer.decode(ids) != text:
            raise StageError(f"the tokenizer does not give back the text it encoded ({kind})",
                             "run tok_train again", "tokenizer")


def _row(*cells: str) -> str:
    return cells[0].ljust(14) + "".join(cell.rjust(13) for cell in cells[1:])


def _facts(tokenizer: Tokenizer, results: dict[str, dict[str, float]], missing: list[str]) -> dict[str, Any]:
    """Flat, one figure per key: `news: bytes per token`, and `news: tokens against gpt2` (0.9 = a tenth fewer)."""
    facts: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size()}
    for kind, row in results.items():
        facts[f"{kind}: bytes per token"] = row["ours"]
        for name, theirs in row.items():
            if name != "ours":
                facts[f"{kind}: tokens against {name}"] = theirs / row["ours"] if row["ours"] else 0.0
    if missing:
        facts["vocabularies not on this disk"] = ", ".join(missing)
    return facts

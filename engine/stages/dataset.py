"""The data that every other stage reads: shards of text, conversations, and questions kept back for the end.

The built-in source is the little world (`engine.world`), made here and now; nothing is downloaded. Public shards are
fetched by `engine.data.fetch`, a person's own text is brought in by `engine.data.own_text`. A manifest is written last,
so data that has one is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.context import StageContext, StageError
from engine.data import conversations as conversation_files
from engine.data.conversations import write_json_lines
from engine.data.fetch import Order, fetch
from engine.data.own_text import OwnText, bring
from engine.data.shards import FOLDER, ROW_GROUP, source_of, write_shard, written_shards
from engine.data.sources import SHARD_SOURCES
from engine.rundir import disk_full, write_atomic
from engine.settings.data import Dataset
from engine.world import corpus
from engine.world.kinds import KINDS
from engine.world.sample import Message

SHARD_DOCUMENTS = 8 * ROW_GROUP
VAL_DOCUMENTS = ROW_GROUP
MID_SHARE = 0.6      # of the conversations; the rest is for SFT
VAL_SHARE = 0.03     # of each of the two, on top of it
LARGEST_OF_OURS = 20_000_000  # bytes of a shard
_STEPS = 5
_TINY_SETTINGS = ("source", "seed", "documents", "conversations", "questions", "python_share")


def run(config: Dataset, context: StageContext) -> None:
    """Write base_data/, and for the little world conversations/, unless the very same data is already there."""
    try:
        facts = _SOURCES.get(config.source, _shards)(config, context)
    except OSError as error:
        raise _disk_error(error, context.base_dir) from error
    if facts:
        context.report("Dataset", facts)


def _shards(config: Dataset, context: StageContext) -> dict[str, Any]:
    source = SHARD_SOURCES[config.source]
    if config.num_files is not None and len(source.numbers(config.num_files)) < 2:
        raise StageError(f"one shard of {config.source} is not enough: training needs one and validation one more",
                         "set --num-files=2 or more", "settings")
    return fetch(Order(source, config.num_files, config.base_url, config.workers), context)


def _own_text(config: Dataset, context: StageContext) -> dict[str, Any]:
    if config.path is None:
        raise StageError("source=folder needs to know which folder", "name it with --path", "settings")
    return bring(OwnText(Path(config.path).expanduser(), config.text_column, config.errors == "replace"), context)


def _tiny_world(config: Dataset, context: StageContext) -> dict[str, Any]:
    """No facts when this data was already there."""
    manifest = context.base_dir / FOLDER / "manifest.json"
    if _complete(manifest, config):
        context.log(f"{manifest.parent} already holds this data")
        context.progress(1, 1, "files")
        return {}
    _refuse_to_replace(context.base_dir)
    manifest.unlink(missing_ok=True)
    written, facts = _write(config, context)
    write_atomic(manifest, json.dumps(_describe(config, context.base_dir, written), indent=2).encode() + b"\n")
    return facts


def _refuse_to_replace(base: Path) -> None:
    """What we made is made again at any time; what took hours to download, or is a person's, is not lost."""
    known = source_of(base / FOLDER)
    large = any(path.stat().st_size > LARGEST_OF_OURS for path in written_shards(base))
    if known not in (None, "tiny_world") or (known is None and large):
        raise StageError(f"{base / FOLDER} holds the text of another source{f', {known}' if known else ''}",
                         "move that folder away, or set NANOCHAT_BASE_DIR to another one", "data")


_SOURCES = {"tiny_world": _tiny_world, "folder": _own_text}


def _write(config: Dataset, context: StageContext) -> tuple[list[Path], dict[str, Any]]:
    base = context.base_dir
    facts: dict[str, Any] = {"Source": config.source, "Seed": config.seed}
    written: list[Path] = []
    for done, (name, count, paths) in enumerate(_parts(config, base), start=1):
        facts[name] = count
        written += paths
        context.log(f"{name}: {count:,}")
        context.progress(done, _STEPS, "parts")
        context.checkpoint_stop()
    facts["Kinds of question"] = len(KINDS)
    facts["Bytes on disk"] = sum(path.stat().st_size for path in written)
    return written, facts


def _parts(config: Dataset, base: Path) -> Iterator[tuple[str, int, list[Path]]]:
    """Make and write one part after another: (what it is, how many, the files)."""
    training = corpus.texts(config.seed, "train", config.documents, config.python_share)
    yield "Training documents", len(training), list(_write_shards(base, training))
    validation = corpus.texts(config.seed, "val", VAL_DOCUMENTS, config.python_share, avoid=set(training))
    val_path = base / FOLDER / f"shard_{len(written_shards(base)):05d}.parquet"
    write_shard(val_path, validation)
    yield "Validation documents", len(validation), [val_path]

    folder = base / conversation_files.FOLDER
    asked: set[str] = set()
    talks = corpus.conversations(config.seed, "train", config.conversations, asked)
    cut = round(len(talks) * MID_SHARE)
    yield "Training conversations", len(talks), _write_pair(folder, "train", talks[:cut], talks[cut:])
    checks = corpus.conversations(config.seed, "val", max(64, round(config.conversations * VAL_SHARE)), asked)
    half = len(checks) // 2
    yield "Validation conversations", len(checks), _write_pair(folder, "val", checks[:half], checks[half:])
    path = folder / "questions.jsonl"
    count = write_json_lines(path, corpus.questions(config.seed, config.questions,
                                                    corpus.asked_before([*talks, *checks])))
    yield "Test questions", count, [path]


def _write_shards(base: Path, texts: list[str]) -> Iterator[Path]:
    """Training shards; those of an earlier run are removed first."""
    for old in written_shards(base):
        old.unlink()
    for number, start in enumerate(range(0, len(texts), SHARD_DOCUMENTS)):
        path = base / FOLDER / f"shard_{number:05d}.parquet"
        write_shard(path, texts[start : start + SHARD_DOCUMENTS])
        yield path


def _write_pair(folder: Path, split: str, mid: list[list[Message]], sft: list[list[Message]]) -> list[Path]:
    paths = [folder / f"mid_{split}.jsonl", folder / f"sft_{split}.jsonl"]
    for path, rows in zip(paths, (mid, sft), strict=True):
        write_json_lines(path, rows)
    return paths


def _describe(config: Dataset, base: Path, files: list[Path]) -> dict[str, Any]:
    """What was asked for and what is on disk: the settings, and size and hash of every file."""
    settings = {name: getattr(config, name) for name in _TINY_SETTINGS}
    return {"v": 1, "settings": settings, "files": {
        path.relative_to(base).as_posix(): {"bytes": path.stat().st_size,
                                            "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files}}


def _complete(manifest: Path, config: Dataset) -> bool:
    """True when the manifest is of these settings and every file it names is there, byte for byte."""
    try:
        described = json.loads(manifest.read_bytes())
        paths = [manifest.parent.parent / name for name in described["files"]]
        return bool(described == _describe(config, manifest.parent.parent, paths))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _disk_error(error: OSError, base: Path) -> StageError:
    if disk_full(error):
        return StageError(f"the disk is full: {base} cannot hold the data", "free some space and start the stage again",
                          "disk-full")
    return StageError(f"cannot write the data: {error}", "check that the folder is writable and has room", "disk")

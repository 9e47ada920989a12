"""Text as nanochat stores it: zstd parquet files with one column `text` in row groups of 1,024 documents.

The last file in sorted order is validation, the others are for training. This file knows where shards are and what is
in them, not where the text came from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.context import StageError
from engine.rundir import sync_dir, write_atomic

ROW_GROUP = 1024
FOLDER = "base_data"
LATER_FOLDER = "base_data_climbmix"
SOURCE = ".source"  # which text the shards are of, from before the first one is written


def shard_files(base: Path) -> list[Path]:
    """All shards below `base`, in order; if there are none, those in the folder that a later nanochat has for them."""
    return written_shards(base) or sorted((base / LATER_FOLDER).glob("*.parquet"))


def written_shards(base: Path) -> list[Path]:
    """The shards in our own folder, in order."""
    return sorted((base / FOLDER).glob("*.parquet"))


def train_files(base: Path) -> list[Path]:
    """The training shards. Raises StageError when there is no data yet."""
    return _at_least_two(base)[:-1]


def val_file(base: Path) -> Path:
    """The validation shard. Raises StageError when there is no data yet."""
    return _at_least_two(base)[-1]


def _at_least_two(base: Path) -> list[Path]:
    files = shard_files(base)
    if len(files) < 2:
        raise StageError(f"{base / FOLDER} holds {len(files)} shards; training needs one and validation one more",
                         "run the dataset stage first", "data")
    return files


def claim(folder: Path, source: str) -> bool:
    """Say that the shards in `folder` are of `source`; True when that was known.

    Raises StageError when they are of another one: shards of all sources have the same names and must not mix.
    """
    known = source_of(folder)
    if known not in (None, source):
        raise StageError(f"{folder} holds the text of another source, {known}",
                         f"move that folder away, or set NANOCHAT_BASE_DIR to another one than {folder.parent}", "data")
    write_atomic(folder / SOURCE, source.encode())
    return known is not None


def source_of(folder: Path) -> str | None:
    """The source that the shards in `folder` were made or fetched from, if that is written down."""
    try:
        return (folder / SOURCE).read_text().strip() or None
    except OSError:
        pass
    try:
        return str(json.loads((folder / "manifest.json").read_bytes())["settings"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def problem_of(path: Path) -> str | None:
    """Why a file is no shard, by its size, its last bytes and its columns; None if it is one."""
    try:
        with pq.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                return f"it has no column text, only {', '.join(file.schema_arrow.names)}"
            return None if file.metadata.num_rows else "it has no rows"
    except (pa.ArrowInvalid, OSError) as error:
        return f"it is not a whole parquet file: {error}"


def write_shard(path: Path, documents: Sequence[str]) -> None:
    """Write one shard, whole or not at all: a crash leaves no file that looks like a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    table = pa.table({"text": pa.array(documents, pa.string())})
    try:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd", compression_level=3,
                       use_dictionary=False, write_statistics=False)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_dir(path.parent)


def documents(files: Sequence[Path], errors: str = "strict") -> Iterator[str]:
    """Every document of `files`, in order, one row group in memory at a time.

    `errors` is for text that is not UTF-8: "strict" raises StageError naming the place, "replace" reads U+FFFD.
    """
    for path in files:
        yield from _read(path, errors)


def _read(path: Path, errors: str) -> Iterator[str]:
    try:
        shard = pq.ParquetFile(path)
        row = 0
        for group in range(shard.num_row_groups):
            column = shard.read_row_group(group, columns=["text"]).column("text")
            yield from _texts(column, path, row, errors)
            row += len(column)
    except (pa.ArrowInvalid, KeyError) as error:
        raise StageError(f"{path} is not a readable shard: {error}", "delete it and run the dataset stage again",
                         "data") from None


def _texts(column: pa.ChunkedArray, path: Path, first: int, errors: str) -> list[str]:
    """The texts of a row group whose first row is row `first` of the file."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.binary()).to_pylist()
    return [_decoded(data, path, row, errors) for row, data in enumerate(raw, start=first)]


def _decoded(data: bytes, path: Path, row: int, errors: str) -> str:
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: row {row:,} is not UTF-8 at its byte {error.start:,}",
                         "replace the file, or read U+FFFD there with --errors=replace", "data") from None

"""A person's own text as shards: parquet, JSON lines and plain text files of a folder, in the order of their names.

Parquet and JSON lines have a document per row. A plain text file is cut into documents where a line is empty, of about
a web page's length each. Every hundredth document is kept back for validation. Nothing is held whole: a shard is
written when its documents are together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.context import StageContext, StageError
from engine.data.shards import FOLDER, ROW_GROUP, SOURCE, claim, write_shard, written_shards
from engine.rundir import write_atomic

SUFFIXES = (".parquet", ".jsonl", ".txt", ".md")
VALIDATION_EACH = 100           # one of so many documents
MOST_VALIDATION = 8 * ROW_GROUP
SHARD_CHARS = 250_000_000       # as in the public shards
SHARD_DOCUMENTS = 64 * ROW_GROUP
PAGE_CHARS = 4_000              # a plain text file is cut at the first empty line behind so many
LONGEST_LINE = 64 << 20         # bytes


@dataclass(frozen=True)
class OwnText:
    """Where the text is and how to read it."""

    path: Path
    text_column: str
    replace: bool  # what is no UTF-8, by U+FFFD


def bring(own: OwnText, context: StageContext) -> dict[str, Any]:
    """Write base_data/ from the files; returns facts for the report. Raises StageError naming file and place."""
    files = text_files(own.path)
    folder = context.base_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    manifest, described = folder / "manifest.json", _describe(own, files)
    if _complete(manifest, described):
        context.log(f"{folder} already holds this text")
        context.progress(1, 1, "files")
        return {}
    old = written_shards(context.base_dir)
    if not claim(folder, "folder") and old:
        (folder / SOURCE).unlink()
        raise StageError(f"{folder} holds {len(old)} shards that came from elsewhere",
                         "move that folder away, or set NANOCHAT_BASE_DIR to another one", "data")
    manifest.unlink(missing_ok=True)
    for path in old:
        path.unlink()
    writer = _Shards(folder)
    for done, file in enumerate(files):
        context.progress(done, len(files), "files")
        for document in documents_of(file, own):
            writer.add(document)
            context.checkpoint_stop()
    written = writer.finish(own.path)
    sizes = {f"{FOLDER}/{path.name}": {"bytes": path.stat().st_size} for path in written}
    write_atomic(manifest, json.dumps({**described, "files": sizes}, indent=2).encode() + b"\n")
    context.progress(len(files), len(files), "files")
    return {"Source": str(own.path), "Files": len(files), "Training documents": writer.training,
            "Validation documents": len(writer.validation), "Characters": writer.chars,
            "Bytes on disk": sum(path.stat().st_size for path in written)}


def _describe(own: OwnText, files: list[Path]) -> dict[str, Any]:
    """What was read: the settings, and the size and time of every file."""
    settings = {"source": "folder", "path": str(own.path.resolve()), "text_column": own.text_column,
                "errors": "replace" if own.replace else "strict"}
    stats = [(str(file), file.stat()) for file in files]
    return {"v": 1, "settings": settings, "read": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def _complete(manifest: Path, described: dict[str, Any]) -> bool:
    """True when the manifest is of this very text and every shard it names is there."""
    try:
        found = json.loads(manifest.read_bytes())
        files = found.pop("files")
        sizes = [(manifest.parent.parent / name).stat().st_size for name in files]
        return bool(found == described and sizes == [entry["bytes"] for entry in files.values()])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def text_files(path: Path) -> list[Path]:
    """The files to read: `path` itself, or those below it that we know how to read. Raises StageError."""
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    kinds = ", ".join(SUFFIXES)
    if not path.is_dir():
        what = f"is no {kinds} file" if path.exists() else "is not there"
        raise StageError(f"{path} {what}", f"name a folder with files of {kinds}, or one such file, by --path", "data")
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not found:
        raise StageError(f"{path} holds no files of {kinds}", "name the folder that does with --path", "data")
    return found


def documents_of(file: Path, own: OwnText) -> Iterator[str]:
    """The documents of one file; empty ones are left out."""
    readers = {".parquet": _parquet, ".jsonl": _json_lines}
    try:
        for document in readers.get(file.suffix, _plain)(file, own):
            if document.strip():
                yield document
    except OSError as error:
        raise StageError(f"{file}: {error.strerror or error}", "check that the file can be read", "data") from error


def _parquet(file: Path, own: OwnText) -> Iterator[str]:
    try:
        with pq.ParquetFile(file) as table:
            if own.text_column not in table.schema_arrow.names:
                raise StageError(f"{file} has no column {own.text_column!r}, only "
                                 f"{', '.join(table.schema_arrow.names)}", "name the column with --text-column", "data")
            for batch in table.iter_batches(ROW_GROUP, columns=[own.text_column]):
                for row, text in enumerate(batch.column(0).to_pylist()):
                    if not isinstance(text, (str, type(None))):
                        raise StageError(f"{file}: column {own.text_column!r} is not text, but "
                                         f"{type(text).__name__} in row {row}", "name another --text-column", "data")
                    yield text or ""
    except pa.ArrowInvalid as error:
        raise StageError(f"{file} is not a readable parquet file: {error}", "replace or remove it", "data") from error


def _json_lines(file: Path, own: OwnText) -> Iterator[str]:
    for number, line in enumerate(_lines(file, own), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[own.text_column]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StageError(f"{file}, line {number}: no text {own.text_column!r}: {type(error).__name__}: {error}",
                             "correct the line, or name the field with --text-column", "data") from error
        if not isinstance(text, str):
            raise StageError(f"{file}, line {number}: {own.text_column!r} is not text, but {type(text).__name__}",
                             "correct the line, or name another --text-column", "data")
        yield text.encode("utf-8", "replace").decode()  # JSON may escape half a surrogate pair


def _plain(file: Path, own: OwnText) -> Iterator[str]:
    lines: list[str] = []
    chars = 0
    for line in _lines(file, own):
        if not line.strip() and chars >= PAGE_CHARS:
            yield "".join(lines)
            lines, chars = [], 0
            continue
        lines.append(line)
        chars += len(line)
        if chars >= 16 * PAGE_CHARS:  # no empty line for long: a list, a table, verse
            yield "".join(lines)
            lines, chars = [], 0
    yield "".join(lines)


def _lines(file: Path, own: OwnText) -> Iterator[str]:
    """The lines of a file as text; says where what is no UTF-8 stands."""
    offset = 0
    with open(file, "rb") as f:
        while line := f.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise StageError(f"{file}: the line at byte {offset:,} is longer than {LONGEST_LINE >> 20} MB",
                                 "cut it: a line is at most one document", "data")
            try:
                yield line.decode("utf-8", "replace" if own.replace else "strict")
            except UnicodeDecodeError as error:
                raise StageError(f"{file}: byte {offset + error.start:,} is not UTF-8",
                                 "convert the file, or read U+FFFD there with --errors=replace", "data") from None
            offset += len(line)


class _Shards:
    """Documents on their way into shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: list[str] = []
        self.validation: list[str] = []
        self.written: list[Path] = []
        self.training = self.chars = self._waiting_chars = 0

    def add(self, document: str) -> None:
        self.chars += len(document)
        number = self.training + len(self.validation)
        if number % VALIDATION_EACH == VALIDATION_EACH - 1 and len(self.validation) < MOST_VALIDATION:
            self.validation.append(document)
            return
        self.training += 1
        self.waiting.append(document)
        self._waiting_chars += len(document)
        if len(self.waiting) >= SHARD_DOCUMENTS or self._waiting_chars >= SHARD_CHARS:
            self._write()

    def finish(self, path: Path) -> list[Path]:
        """Write what is left, validation last. Raises StageError when there is not enough text for both."""
        if not self.validation and len(self.waiting) > 1:
            self.validation.append(self.waiting.pop())
            self.training -= 1
        if not self.validation or not self.training:
            raise StageError(f"{path} holds {self.training} documents; training needs one and validation one more",
                             "add text: documents are rows, or parts of a text file between empty lines", "data")
        if self.waiting:
            self._write()
        self.waiting = self.validation
        self._write()
        return self.written

    def _write(self) -> None:
        path = self.folder / f"shard_{len(self.written):05d}.parquet"
        write_shard(path, self.waiting)
        self.written.append(path)
        self.waiting, self._waiting_chars = [], 0

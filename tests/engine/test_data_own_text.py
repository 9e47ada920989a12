"""A person's own text as shards: every kind of file, and every kind of wrong file named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.context import StageContext, StageError
from engine.data import own_text, shards
from engine.events import EventWriter
from engine.settings.data import Dataset
from engine.stages import dataset


@pytest.fixture
def own_context(tmp_path: Path) -> StageContext:
    return StageContext(tmp_path / "b", EventWriter(None), "dataset")


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    (folder / "more").mkdir(parents=True)
    pq.write_table(pa.table({"text": [f"row {i} é" for i in range(150)], "n": range(150)}), folder / "a.parquet")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": f"line {i}"}) + "\n\n" for i in range(60)))
    (folder / "more" / "c.txt").write_text("\n\n".join(f"paragraph {i} " + "word " * 600 for i in range(9)))
    (folder / ".hidden.txt").write_text("not this")
    (folder / "d.bin").write_bytes(b"\0")
    return folder


def own(folder: Path, **changed: str) -> Dataset:
    return Dataset(source="folder", path=str(folder), **changed)


def test_every_document_is_in_exactly_one_shard(own_context: StageContext, own_folder: Path) -> None:
    dataset.run(own(own_folder), own_context)
    base = own_context.base_dir
    training, validation = (list(shards.documents(files)) for files in
                            (shards.train_files(base), [shards.val_file(base)]))
    expected = [f"row {i} é" for i in range(150)] + [f"line {i}" for i in range(60)]
    assert [text for text in training if len(text) < 20] == [text for n, text in enumerate(expected) if n % 100 != 99]
    assert validation[:2] == [expected[99], expected[199]]
    plain = [text for text in training if text.startswith("paragraph")]
    assert "".join(plain).count("paragraph") == 9 and len(plain) == 5 and all(len(text) < 7000 for text in plain)
    report = json.loads((base / "report" / "dataset.json").read_text())["data"]
    assert (report["Training documents"], report["Validation documents"]) == (213, 2)


def test_the_same_text_is_left_alone_and_changed_text_is_read_again(own_context: StageContext,
                                                                    own_folder: Path) -> None:
    dataset.run(own(own_folder), own_context)
    path = shards.train_files(own_context.base_dir)[0]
    before = path.stat().st_mtime_ns
    dataset.run(own(own_folder), own_context)
    assert path.stat().st_mtime_ns == before
    (own_folder / "b.jsonl").write_text('{"text": "only"}\n')
    dataset.run(own(own_folder), own_context)
    assert len(list(shards.documents(shards.shard_files(own_context.base_dir)))) == 150 + 1 + 5


def test_shards_are_written_one_after_another(own_context: StageContext, own_folder: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_text, "SHARD_DOCUMENTS", 64)
    dataset.run(own(own_folder), own_context)
    assert len(shards.train_files(own_context.base_dir)) == 4


@pytest.mark.parametrize(("name", "body", "what"), [
    ("a.parquet", b"PAR1 nothing", r"a.parquet is not a readable parquet file"),
    ("b.jsonl", b'{"text": "x"}\n{"other": 1}\n', r"b.jsonl, line 2: no text 'text': KeyError"),
    ("b.jsonl", b'{"text": 5}\n', r"b.jsonl, line 1: 'text' is not text, but int"),
    ("b.jsonl", b"[" * 100_000 + b"\n", r"b.jsonl, line 1: no text"),
    ("more/c.txt", b"good\nb\xffd\n", r"c.txt: byte 6 is not UTF-8"),
])
def test_what_is_wrong_is_named(own_context: StageContext, own_folder: Path, name: str, body: bytes,
                                what: str) -> None:
    (own_folder / name).write_bytes(body)
    with pytest.raises(StageError, match=what) as error:
        dataset.run(own(own_folder), own_context)
    assert error.value.next
    assert not (own_context.base_dir / "base_data" / "manifest.json").exists()


def test_invalid_utf8_is_replaced_on_wish(own_context: StageContext, own_folder: Path) -> None:
    (own_folder / "more" / "c.txt").write_bytes(b"b\xffd")
    dataset.run(own(own_folder, errors="replace"), own_context)
    assert "b\ufffdd" in list(shards.documents(shards.shard_files(own_context.base_dir)))


def test_a_column_of_another_name(own_context: StageContext, own_folder: Path) -> None:
    with pytest.raises(StageError, match=r"no column 'body', only text, n") as error:
        dataset.run(own(own_folder, text_column="body"), own_context)
    assert "--text-column" in error.value.next
    with pytest.raises(StageError, match=r"'n' is not text, but int"):
        dataset.run(own(own_folder, text_column="n"), own_context)


def test_no_path_no_files_and_one_document_are_said(own_context: StageContext, tmp_path: Path) -> None:
    for config, what in ((Dataset(source="folder"), "which folder"), (own(tmp_path / "none"), "is not there"),
                         (own(Path(__file__)), "is no .parquet")):
        with pytest.raises(StageError, match=what):
            dataset.run(config, own_context)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(StageError, match="holds no files"):
        dataset.run(own(empty), own_context)
    (empty / "one.txt").write_text("one document\n")
    with pytest.raises(StageError, match="holds 1 documents"):
        dataset.run(own(empty), own_context)


def test_shards_from_elsewhere_are_not_lost(own_context: StageContext, own_folder: Path) -> None:
    path = own_context.base_dir / "base_data" / "shard_00000.parquet"
    shards.write_shard(path, ["theirs"])
    with pytest.raises(StageError, match="came from elsewhere"):
        dataset.run(own(own_folder), own_context)
    assert path.exists()

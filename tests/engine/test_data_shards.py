"""Shards on disk are nanochat's: one column, row groups of 1,024, zstd, the last file for validation."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.context import StageError
from engine.data import shards


def test_a_shard_holds_its_documents_in_row_groups_of_1024(tmp_path):
    texts = [f"document {i}\n\ttabs and lines" for i in range(2500)]
    path = tmp_path / "base_data" / "shard_00000.parquet"
    shards.write_shard(path, texts)
    file = pq.ParquetFile(path)
    assert file.schema_arrow.names == ["text"] and str(file.schema_arrow.field("text").type) == "string"
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1024, 1024, 452]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert list(shards.documents([path])) == texts
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_last_shard_is_validation(tmp_path):
    for number in (2, 0, 1):
        shards.write_shard(tmp_path / "base_data" / f"shard_{number:05d}.parquet", [str(number)])
    assert list(shards.documents(shards.train_files(tmp_path))) == ["0", "1"]
    assert list(shards.documents([shards.val_file(tmp_path)])) == ["2"]


@pytest.mark.parametrize("count", [0, 1])
def test_one_shard_is_not_enough(tmp_path, count):
    for number in range(count):
        shards.write_shard(tmp_path / "base_data" / f"shard_{number:05d}.parquet", ["x"])
    with pytest.raises(StageError) as error:
        shards.train_files(tmp_path)
    assert str(tmp_path) in str(error.value) and "dataset" in error.value.next


def test_a_failed_write_leaves_the_old_shard_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "shard_00000.parquet"
    shards.write_shard(path, ["old"])

    def full_disk(table, where, **options):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="space"):
        shards.write_shard(path, ["new"])
    assert list(shards.documents([path])) == ["old"] and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_damaged_shard_is_named(tmp_path):
    path = tmp_path / "shard_00000.parquet"
    path.write_bytes(b"PAR1 and then nothing of use")
    with pytest.raises(StageError, match="shard_00000"):
        list(shards.documents([path]))


def test_text_that_is_no_utf8_is_named_or_replaced(tmp_path):
    good, bad = b"good", b"b\xffd"
    ends = [0, 4, 8, 11]
    data = [None, pa.py_buffer(b"".join(end.to_bytes(4, "little") for end in ends)), pa.py_buffer(good + good + bad)]
    path = tmp_path / "shard.parquet"
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 3, data)}), path, row_group_size=1)
    with pytest.raises(StageError, match=r"shard.parquet: row 2 is not UTF-8 at its byte 1") as error:
        list(shards.documents([path]))
    assert "--errors=replace" in error.value.next
    assert list(shards.documents([path], "replace")) == ["good", "good", "b\ufffdd"]

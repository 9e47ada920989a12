"""The dataset stage: complete, the same on every machine, made once, honest when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys

import pytest

from engine.context import StageContext, StageError
from engine.data import shards
from engine.data.conversations import json_lines, read_conversations
from engine.events import EventWriter, parse_line
from engine.settings.data import Dataset
from engine.stages import dataset
from engine.world.corpus import asked_before
from engine.world.kinds import asked
from engine.world.marking import normalised

SMALL = Dataset(documents=2048, conversations=400, questions=50)
NAMES = ["mid_train", "mid_val", "sft_train", "sft_val"]


@pytest.fixture
def context(tmp_path):
    return StageContext(tmp_path / "b", EventWriter(tmp_path / "events.jsonl", stage="01-dataset"), "dataset")


def fingerprints(base):
    files = [p for p in base.rglob("*") if p.is_file() and p.parent.name in ("base_data", "conversations")]
    return {p.relative_to(base).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_everything_is_there(context, tmp_path):
    dataset.run(SMALL, context)
    base = context.base_dir
    assert sum(1 for _ in shards.documents(shards.train_files(base))) == 2048
    training = set(shards.documents(shards.train_files(base)))
    validation = list(shards.documents([shards.val_file(base)]))
    assert len(validation) > 500 and not training & set(validation)
    talks = {name: read_conversations(base / "conversations" / f"{name}.jsonl") for name in NAMES}
    assert len(talks["mid_train"]) + len(talks["sft_train"]) == 400 and talks["mid_val"] and talks["sft_val"]
    seen = asked_before(c for some in talks.values() for c in some)
    questions = [row for _, row in json_lines(base / "conversations" / "questions.jsonl")]
    assert len(questions) == 50 and not [q for q in questions if normalised(asked(q["messages"])) in seen]
    events = [parse_line(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert events[-1].data["done"] == events[-1].data["total"]
    assert json.loads((base / "report" / "dataset.json").read_text())["data"]["Training documents"] == 2048


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path):
    """String hashes differ between processes: nothing may depend on them."""
    code = ("import sys; from pathlib import Path; from engine.context import StageContext; "
            "from engine.events import EventWriter; from engine.settings.data import Dataset; "
            "from engine.stages.dataset import run; "
            "run(Dataset(documents=2048, conversations=400, questions=50), "
            "StageContext(Path(sys.argv[1]), EventWriter(None), 'dataset'))")
    for salt in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / salt)], check=True, env={"PYTHONHASHSEED": salt},
                       stdout=subprocess.DEVNULL, timeout=60)
    one = fingerprints(tmp_path / "1")
    assert len(one) == 8 and one == fingerprints(tmp_path / "2")


def test_complete_data_is_left_alone_and_anything_else_is_made_again(context):
    dataset.run(SMALL, context)
    base = context.base_dir
    made = fingerprints(base)
    path = base / "conversations" / "sft_train.jsonl"
    before = path.stat().st_mtime_ns
    dataset.run(SMALL, context)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:-100])
    dataset.run(SMALL, context)
    assert fingerprints(base) == made
    dataset.run(Dataset(seed=7, documents=2048, conversations=400, questions=50), context)
    assert fingerprints(base)["base_data/shard_00000.parquet"] != made["base_data/shard_00000.parquet"]


def test_fewer_documents_leave_no_shard_of_the_larger_set(context):
    dataset.run(Dataset(documents=9000, conversations=400, questions=20), context)
    assert len(shards.shard_files(context.base_dir)) == 3
    dataset.run(SMALL, context)
    assert len(shards.shard_files(context.base_dir)) == 2


def test_a_full_disk_is_said_and_leaves_nothing_that_looks_complete(context, monkeypatch):
    def full(path, documents):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dataset, "write_shard", full)
    with pytest.raises(StageError) as error:
        dataset.run(SMALL, context)
    assert error.value.code == "disk-full" and error.value.next
    assert not (context.base_dir / "base_data" / "manifest.json").exists()

"""The run folder: names that are safe, files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import rundir


@given(st.text())
def test_a_valid_id_is_one_plain_path_part(run_id: str) -> None:
    if rundir.valid_run_id(run_id):
        assert Path("/runs", run_id).parts == ("/", "runs", run_id)
        assert not run_id.startswith(("-", ".")) and run_id.isprintable() and " " not in run_id


def test_new_ids_are_valid_and_creation_is_exclusive(tmp_path: Path) -> None:
    run_id = rundir.new_run_id("tiny", 0.0)
    assert rundir.valid_run_id(run_id)
    run = rundir.create(tmp_path, run_id, {"v": 1})
    assert run.read() == {"v": 1} and run.base.is_dir() and run.id == run_id
    with pytest.raises(FileExistsError):
        rundir.create(tmp_path, run_id, {"v": 2})
    assert run.read() == {"v": 1}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    rundir.write_atomic(path, b"old")

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        rundir.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"

"""Rows of other programs beside ours, ours in a file of their own; the run log itself stays as it is."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import call
from console.exit_codes import Exit

Captured = pytest.CaptureFixture[str]
SHAPES = {
    "peer-1.csv": "step,loss\n1,2.25\n2,2.0\n",
    "peer-1.tsv": "step\tloss\n1\t2.25\n2\t2.0\n",
    "peer-1.json": json.dumps([{"step": 1, "loss": 2.25}, {"step": 2, "loss": 2.0, "note": "x"}]),
    "peer-1.jsonl": '{"step": 1, "loss": 2.25}\n{"step": 2, "loss": 2.0, "note": "x"}\n',
}


@pytest.fixture
def two_steps(make_run: Callable[..., Any]) -> None:
    _, writer = make_run("mine")
    writer.metric(1, loss=2.5)
    writer.metric(2, loss=2.125)
    writer.evaluation(2, val_bpb=0.75)


@pytest.mark.parametrize("name", SHAPES)
def test_a_curve_of_another_program_is_joined_with_ours(two_steps: None, capsys: Captured, tmp_path: Path, name: str
                                                        ) -> None:
    (tmp_path / name).write_text(SHAPES[name])
    sql = ("SELECT step, metrics.value - peer_1.loss AS apart FROM metrics JOIN peer_1 USING (step) "
           "WHERE name = 'loss' ORDER BY step")
    assert call(["query", sql, "--with", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == "step\tapart\n1\t0.25\n2\t0.125\n"


def test_nothing_can_be_changed_that_way_either(two_steps: None, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    for sql in ("DELETE FROM runs", "DELETE FROM a", "DELETE FROM ledger.intents"):
        assert call(["query", sql, "--with", str(tmp_path / "a.csv")]) == Exit.USAGE
    assert call(["query", "SELECT count(*) FROM ledger.intents", "--with", str(tmp_path / "a.csv")]) == 0


def test_what_holds_no_rows_is_said(two_steps: None, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{nonsense")
    assert call(["query", "SELECT 1", "--with", str(tmp_path / "a.json")]) == Exit.USAGE
    assert "holds no rows" in capsys.readouterr().err


def test_a_run_as_a_file_of_its_own(two_steps: None, cli_json: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.db"
    code, found = cli_json("run", "export", "mine", str(file))
    assert code == 0 and found["rows"] == {"runs": 1, "stages": 1, "metrics": 3, "events": 1, "checkpoints": 0}
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT step, value FROM metrics WHERE name = 'loss' ORDER BY step").fetchall() == [
        (1, 2.5), (2, 2.125)]
    connection.close()
    assert cli_json("run", "export", "mine", str(file))[0] == Exit.REFUSED


def test_the_library_is_imported_for_these_alone() -> None:
    code = "import sys, console.cli.query, console.cli.run, console.app, console.foreign_rows; " \
           "print('sqlite_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

"""What people and scripts type by mistake: no traceback, no limit that limits nothing, no false "safe"."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.cli import status
from console.cli.main import call
from console.exit_codes import Exit
from console.paths import Home
from console.runlog.db import damage
from console.workspace import Workspace

ROOT = Path(__file__).parent.parent.parent
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("words", [
    ["run", "start", "tiny", "--target", "runpod", "--budget", "nan", "--hours", "6"],
    ["run", "start", "tiny", "--target", "runpod", "--budget", "1e400", "--hours", "6"],
    ["run", "start", "tiny", "--target", "runpod", "--budget", "5", "--hours", "nan"],
    ["run", "start", "tiny", "--target", "runpod", "--budget", "0", "--hours", "6"],
    ["cost", "limit", "x", "--budget", "inf"], ["cost", "limit", "x", "--hours", "-1"],
    ["run", "wait", "x", "--timeout", "nan"], ["run", "list", "--limit", "9" * 30],
    ["recipe", "show", "tiny", "--usd", "-3"],
    ["run", "start", "", "--yes"], ["run", "start", "tiny", "--target", "", "--yes"],
    ["run", "start", "tiny", "--set", "base_train.depth=999999999", "--dry-run"],
    ["ckpt", "backup", "--to", "bogus", "--dry-run"], ["ckpt", "backup", "--to", "hub:a/b/c", "--dry-run"],
    ["ckpt", "backup", "--to", "hub:a/..", "--dry-run"], ["ckpt", "backup", "--to", "ssh:x", "--dry-run"],
    ["ckpt", "import", "a/b", "--target-tag", "../../x"], ["run", "attach", "--log", "/"]])
def test_what_cannot_be_meant_is_exit_2_before_anything_happens(capsys: Captured, words: list[str]) -> None:
    assert call(words) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") <= 3


@pytest.mark.parametrize("words", [["ckpt", "safe"], ["ckpt", "safe", "--run", "../.."], ["ckpt", "safe", "--run", "x"],
                                   ["ckpt", "backup", "--run", ".."], ["model", "pull", ""]])
def test_a_place_that_is_not_there_is_never_safe(capsys: Captured, workspace: Workspace, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "no" / "base"))
    code = call(words)
    assert code in (Exit.NOT_FOUND, Exit.REFUSED) and "safe" not in capsys.readouterr().out


def test_safe_says_so_where_there_is_nothing_to_lose(capsys: Captured) -> None:
    assert call(["ckpt", "safe"]) == 0
    assert "no checkpoint below" in capsys.readouterr().out


def test_a_group_without_a_verb_prints_its_help(capsys: Captured) -> None:
    assert call(["run"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Usage: llmconsole run ")


def test_our_own_fault_goes_to_a_file_and_not_over_the_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch,
                                                                tmp_path: Path) -> None:
    def broken(*words: Any) -> dict[str, Any]:
        raise AssertionError("hf_" + "x" * 30)

    monkeypatch.setattr(status, "_facts", broken)
    assert call(["status"]) == Exit.WORK_FAILED
    err = capsys.readouterr().err
    assert "Traceback" not in err and "x" * 30 not in err
    dump, = (tmp_path / "home" / "crash").iterdir()
    assert "Traceback" in dump.read_text() and "x" * 30 not in dump.read_text()


def test_a_full_disk_is_named(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    monkeypatch.setattr(status, "_facts", full)
    assert call(["status"]) == Exit.WORK_FAILED
    assert "a disk is full, at /data/x" in capsys.readouterr().err


def test_what_cannot_be_read_now_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        damage(tmp_path / "no folder" / "ledger.db", thorough=True)


def test_nothing_is_deleted_where_nobody_can_be_asked(capsys: Captured, workspace: Workspace, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    from console.cli.asking import typed
    from console.errors import UsageProblem

    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    with pytest.raises(UsageProblem, match="nobody can be asked"):
        typed("Type x to delete it", "x")


@pytest.mark.parametrize("line", ["run metrics --name loss | head -1", "run metrics --name loss --json | head -1",
                                  "run metrics >&-", "--help >&-"])
def test_a_closed_or_short_stdout_is_no_error(make_run: Callable[..., Any], line: str) -> None:
    _, writer = make_run()
    for step in range(20_000):
        writer.emit("metric", {"loss": float(step)}, stage="01-base_train", step=step)
    writer.close()
    with Workspace.open() as workspace:
        workspace.ingest()
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{sys.executable} -m console {line}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert Home(Path(os.environ["LLMCONSOLE_HOME"])).runlog.exists()

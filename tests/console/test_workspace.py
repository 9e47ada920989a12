"""One writer, any number of readers, and no confusion about who is which."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console import paths
from console.errors import Conflict, ConsoleError, Refused
from console.workspace import Workspace


def test_the_home_follows_the_environment_and_nothing_is_made_by_asking(tmp_path: Path) -> None:
    assert paths.home() == tmp_path / "home"
    assert not (tmp_path / "home").exists()


def test_without_the_variable_the_platform_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLMCONSOLE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert paths.home().name == "llmconsole"


def test_a_second_console_reads_and_says_who_owns(workspace: Workspace, make_run: Callable[..., Any],
                                                  write_recipe: Callable[..., str]) -> None:
    run, writer = make_run()
    writer.metric(1, loss=2.0)
    workspace.ingest()
    with Workspace.open(patience=0) as second:
        assert second.read_only and second.owner
        assert second.owner.pid == os.getpid()
        assert second.ingest() == 0
        assert second.queries.latest_metrics(run.id, "01-base_train")["loss"].value == 2.0
        plan = second.operator.plan(write_recipe())
        for act in (lambda: second.operator.start(plan), lambda: second.operator.stop(run.id),
                    lambda: second.operator.resume(run.id)):
            with pytest.raises(Conflict, match=str(os.getpid())):
                act()
    assert not workspace.read_only


def test_a_reader_takes_over_when_the_owner_has_left(workspace: Workspace, make_run: Callable[..., Any],
                                                     wait_until: Callable[..., Any]) -> None:
    with Workspace.open(patience=0) as second:
        assert not second.promote()
        second.follow()
        workspace.close()
        wait_until(lambda: not second.read_only)
        run, writer = make_run()
        writer.metric(1, loss=2.0)
        second.watch(run.id)
        wait_until(lambda: second.queries.latest_metrics(run.id, "01-base_train"))


def test_a_short_lived_owner_is_waited_for(workspace: Workspace) -> None:
    import threading

    threading.Timer(0.1, workspace.close).start()
    with Workspace.open(patience=3) as second:
        assert not second.read_only


def test_read_only_on_request_changes_nothing(workspace: Workspace, write_recipe: Callable[..., str]) -> None:
    workspace.close()
    with Workspace.open(read_only=True) as reader:
        assert reader.read_only and reader.owner is None
        assert not reader.promote()
        with pytest.raises(Refused, match="read-only"):
            reader.operator.start(reader.operator.plan(write_recipe()))


def test_read_only_without_any_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConsoleError, match="no run log"):
        Workspace.open(read_only=True)
    assert not (tmp_path / "home").exists()


def test_an_owner_that_was_killed_leaves_no_lock_behind(make_run: Callable[..., Any]) -> None:
    home = paths.Home(paths.home())
    child = os.fork()
    if child == 0:
        try:
            Workspace.open()
            time.sleep(30)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 5
    while not (home.lock.exists() and home.lock.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert json.loads(home.lock.read_bytes())["pid"] == child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with Workspace.open(patience=2) as workspace:
        assert not workspace.read_only and workspace.notices == []


@pytest.mark.parametrize("read_only", [True, False])
def test_files_of_a_newer_program_are_left_alone(workspace: Workspace, read_only: bool) -> None:
    assert workspace.runlog
    workspace.runlog.execute("PRAGMA user_version=99")
    workspace.close()
    with pytest.raises(ConsoleError, match="newer llmconsole"):
        Workspace.open(read_only=read_only)


def test_a_damaged_ledger_is_kept_and_said(workspace: Workspace) -> None:
    home = workspace.home
    workspace.close()
    home.ledger.write_bytes(b"garbage" * 4000)
    with Workspace.open() as again:
        assert "ledger was damaged" in again.notices[0]
        assert not again.read_only
    assert [p for p in home.path.glob("ledger.db.damaged-*") if p.read_bytes().startswith(b"garbage")]


def test_closing_twice_is_harmless_and_quick_beside_a_follower(workspace: Workspace) -> None:
    workspace.follow()
    begun = time.monotonic()
    workspace.close()
    workspace.close()
    assert time.monotonic() - begun < 0.5

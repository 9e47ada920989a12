"""A recorded run behind a link that is cut again and again gives the run log that it gives here, to the last row."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


replay_runlog = load("replay_runlog", TESTS / "bench" / "replay_runlog.py")
machines = load("machines_of_the_remote_tests", TESTS / "remote" / "conftest.py")


def test_cuts_change_nothing_in_the_run_log(tmp_path: Path) -> None:
    box = machines.start_sshd(tmp_path / "sshd")
    relay = machines.Relay(box.port)
    try:
        found = replay_runlog.replay(box, relay, tmp_path / "world", lines=8000, seconds=5, cut=(0.2, 1.2))
    finally:
        relay.close()
        box.process.kill()
        box.process.wait()
    assert found.cuts >= 3 and found.same_rows and found.same_files

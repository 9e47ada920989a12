"""kill -9 at single system calls, spread over all that a run makes; tests/bench/drill_kills.py does every one."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kill_points = load("kill_points")
drill_kills = load("drill_kills")

HOW_MANY = {"console": 5, "follower": 6, "launcher": 4, "stop": 2, "supervisor": 4}


@pytest.fixture(autouse=True)
def own_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drill points the environment at a folder per life."""
    for name in ("LLMCONSOLE_HOME", "NANOCHAT_BASE_DIR", "LLMCONSOLE_ATTEMPT"):
        monkeypatch.setenv(name, "")
    if not kill_points.allowed():
        pytest.skip("this machine does not let a process trace its children")


@pytest.mark.parametrize("scenario", list(HOW_MANY))
def test_killed_at_a_call_the_next_start_heals_it(scenario: str, tmp_path: Path) -> None:
    found = drill_kills.drill(scenario, tmp_path, HOW_MANY[scenario])
    assert [text for _, _, _, wrong in found for text in wrong] == []
    assert sum(outcomes["killed"] for _, _, outcomes, _ in found) >= HOW_MANY[scenario] - 1


def test_a_call_that_is_killed_does_not_happen(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"

    def work() -> None:
        source.write_text("x")
        source.rename(target)

    calls = kill_points.run(work).calls[0]
    assert target.exists() and "rename" in calls
    target.unlink()
    trace = kill_points.run(work, (0, calls.index("rename")))
    assert trace.killed and trace.code == -9 and source.exists() and not target.exists()


class StartsBeforeItWrites(drill_kills.Launching):  # type: ignore[misc]
    """The command first, then the record of who keeps it, as most tools do."""

    def work(self) -> None:
        from remote import job_runner

        held: list[Any] = []
        write, start = job_runner.write_durably, job_runner._start

        def late(request: dict[str, Any], folder: Path) -> int:
            child = start(request, folder)
            time.sleep(0.1)
            for words in held:
                write(*words)
            return child

        job_runner.write_durably = lambda *words: held.append(words)  # in the fork that is killed only
        job_runner._start = late
        super().work()


def test_the_drill_sees_what_goes_wrong_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(drill_kills.SCENARIOS, "launcher", StartsBeforeItWrites)
    trace, expected = drill_kills.unkilled("launcher", tmp_path)
    keeper = drill_kills.Launching.roles.index("keeper")
    begins = max(i for i, name in enumerate(trace.calls[keeper]) if name in ("clone", "clone3", "fork", "vfork"))
    after = [(keeper, begins + later) for later in (2, 3, 4, 1)]
    assert any(drill_kills.kill("launcher", tmp_path, at, expected)[0] == "WRONG" for at in after)

"""A run on another machine, over a real SSH server on loopback: the same words, logs and curves as here."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.errors import NotFound
from console.machines.hosts import Hosts
from console.machines.targets import SSH, Target, Targets
from console.runstate import Word
from console.workspace import Workspace
from remote.errors import HostUnreachable
from remote.ssh.known_hosts import KnownHosts

Wait = Callable[..., Any]


def load(name: str) -> Any:
    path = Path(__file__).parents[1] / "remote" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"remote_{name}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[f"remote_{name}"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def far_box(tmp_path: Path) -> Iterator[Any]:
    """A machine with a real sshd and a home of its own."""
    box = load("conftest").start_sshd(tmp_path / "box")
    yield box
    box.process.send_signal(signal.SIGCONT)
    box.process.kill()
    box.process.wait()


@pytest.fixture
def far(far_box: Any, tmp_path: Path) -> Target:
    """That machine as a target that was prepared: our packages import in its Python."""
    home = tmp_path / "home"
    KnownHosts(home / "known_hosts").pin("box", far_box.host_key)
    target = Target("box", SSH, far_box.route().user, "127.0.0.1", far_box.port, str(far_box.key),
                    base=str(far_box.folder / "base"), python=(sys.executable,))
    Targets(home).put(target)
    return target


@pytest.fixture
def far_workspace(far: Target, stand_in: object) -> Iterator[Workspace]:
    with Workspace.open() as opened:
        yield opened


def test_a_run_there_is_followed_and_read_here(far_workspace: Workspace, far: Target, write_recipe: Any,
                                               wait_until: Wait) -> None:
    plan = far_workspace.operator.plan(write_recipe(title="sleep:0.3"), "box")
    assert plan.path.startswith(far.base) and plan.target_title == "box" and plan.ok
    assert "--target box" in plan.cli
    run = far_workspace.operator.start(plan)
    assert (Path(plan.path) / "run.json").exists()

    def ended() -> bool:
        far_workspace.ingest()
        return far_workspace.operator.state(run).word is Word.FINISHED

    wait_until(ended, seconds=20)
    far_workspace.ingest()
    assert far_workspace.queries.latest_metrics(run, "01-base_train")["loss"].value == pytest.approx(2.6)
    state = far_workspace.operator.state(run)
    assert state.log_tail[-1] == "line 29"
    copied = far_workspace.home.mirror / run
    assert (copied / "events.jsonl").read_bytes() == (Path(plan.path) / "events.jsonl").read_bytes()


def test_a_run_of_others_there_is_followed_and_nothing_is_written(far: Target, far_box: Any, wait_until: Wait
                                                                  ) -> None:
    from console.attaching import attach, complete, look_at

    log = far_box.home / "speedrun.log"
    log.write_text("num_layers: 10\n" + "".join(f"step {n:05d}/00200 (1.00%) | loss: 2.5\n" for n in range(200)))
    with Workspace.open() as workspace:
        found = look_at(workspace, "box", "~/speedrun.log")
        assert str(found) == "found: 201 lines, classic nanochat, Base at step 199 of 200"
        assert look_at(workspace, "box", str(far_box.home)).logs == ("speedrun.log",)
        assert complete(workspace, "box", "~/speed") == "~/speedrun.log"
        run = attach(workspace, "box", "~/speedrun.log")
        try:
            wait_until(lambda: workspace.ingest() >= 0 and
                       getattr(workspace.queries.latest_metrics(run, "04-base_train").get("loss"), "step", 0) == 199,
                       seconds=20)
        finally:
            workspace.operator.stop(run)
    assert [path.name for path in far_box.home.iterdir()] == ["speedrun.log"]


def test_stop_and_resume_work_there(far_workspace: Workspace, write_recipe: Any, wait_until: Wait) -> None:
    operator = far_workspace.operator
    run = operator.start(operator.plan(write_recipe(title="sleep:30"), "box"))
    wait_until(lambda: far_workspace.ingest() >= 0 and operator.state(run).word is Word.RUNNING, seconds=20)
    operator.stop(run)
    wait_until(lambda: far_workspace.ingest() >= 0 and operator.state(run, fresh=True).word is Word.STOPPED, seconds=20)
    assert operator.resume(run) == 2
    wait_until(lambda: far_workspace.ingest() >= 0 and operator.state(run).word is Word.FINISHED, seconds=20)


def test_a_machine_that_falls_silent_is_stale_and_then_read_on(far_workspace: Workspace, far_box: Any,
                                                               write_recipe: Any, wait_until: Wait) -> None:
    operator = far_workspace.operator
    run = operator.start(operator.plan(write_recipe(title="sleep:3"), "box"))
    wait_until(lambda: far_workspace.ingest() >= 0 and operator.state(run).word is Word.RUNNING, seconds=20)
    far_workspace.hosts.close()
    far_box.process.kill()
    far_box.process.wait()
    state = operator.state(run, fresh=True)
    assert state.word is Word.STALE and state.alive and "no answer since" in state.text
    with pytest.raises(HostUnreachable), far_workspace.hosts.contact("box"):
        pytest.fail("a silent machine is left alone for a moment")
    restart(far_box)
    far_workspace.hosts.try_now("box")
    wait_until(lambda: far_workspace.ingest() >= 0 and operator.state(run).word is Word.FINISHED, seconds=30)


def restart(box: Any) -> None:
    import subprocess

    server = ["/usr/sbin/sshd", "-D", "-f", str(box.folder / "sshd_config"), "-E", str(box.folder / "log")]
    box.process = subprocess.Popen(server)
    load("conftest").wait_for_port(box.port)


def test_another_key_than_the_pinned_one_is_refused(far: Target, far_box: Any, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "home" / "known_hosts")
    known.forget("box")
    known.pin("box", "ssh-ed25519 " + "A" * 68)
    hosts = Hosts(tmp_path / "home")
    with pytest.raises(HostUnreachable, match="pinned"), hosts.contact("box") as host:
        host.stat("/")
    hosts.close()


def test_what_is_known_of_targets_is_whole_after_every_change(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "home")
    targets.put(Target("gpu1", SSH, "me", "gpu1.example.org"))
    targets.use("gpu1")
    assert [t.name for t in Targets(tmp_path / "home").all()] == ["local", "gpu1"] and targets.default == "gpu1"
    assert targets.path.stat().st_mode & 0o077 == 0
    with pytest.raises(NotFound, match="no target is called 'gpu2'"):
        targets.find("gpu2")
    targets.remove("gpu1")
    assert targets.default == ""

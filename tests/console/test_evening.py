"""The rented evening against a RunPod on loopback whose pods are real shells: from the decision to "nothing bills".

Killed at every step, it ends the same way: one create, one start, everything copied and read back, no pod left.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.errors import Conflict, Refused, UsageProblem
from console.machines import preparing
from console.rental import bench as rental_bench
from console.rental import steps as rental_steps
from console.rental.bench import PodBench
from console.rental.book import RentalBook
from console.rental.rental import Phase, Rental
from console.runstate import Word
from console.settings import RentSettings
from console.workspace import Workspace
from remote import job
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod
from remote.runpod.client import RunPod

SETTINGS = RentSettings(gpus="2xA100", ready_minutes=1, hold_minutes=0)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    """A provider on loopback that this test's consoles rent from."""
    found = FakeCloud(tmp_path / "cloud", placing_s=0.1, pulling_s=0.1)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    with FakeRunPod(found) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        yield found


@pytest.fixture
def cheap_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our program is on every pod already, so that a life takes some seconds."""
    import sys

    import remote.bootstrap

    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)


def quote(workspace: Workspace, recipe: str, **money: float) -> Any:
    budget = {"budget_usd": 20.0, "budget_hours": 1.0, **money}
    return workspace.operator.rentals.quote(recipe, run_id="evening", settings=SETTINGS, **budget)


def to_the_end(workspace: Workspace, rental: Rental, seconds: float = 150.0) -> Rental:
    until = time.monotonic() + seconds
    ended = workspace.operator.rentals.drive(rental.id, lambda _: time.monotonic() > until, lambda _: None)
    workspace.ingest()
    return ended


def living(cloud: FakeCloud) -> list[str]:
    return [life.id for life in cloud.lives.values() if life.ended is None]


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_from_the_decision_to_nothing_bills(cloud: FakeCloud, write_recipe: Any, tmp_path: Path) -> None:
    with Workspace.open() as workspace:
        rental = workspace.operator.rentals.rent(quote(workspace, write_recipe(title="sleep:0.5")))
        assert workspace.operator.state("evening").word is Word.QUEUED
        ended = to_the_end(workspace, rental)
        assert ended.phase is Phase.GONE and living(cloud) == [] and cloud.creates == 1
        state = workspace.operator.state("evening")
        assert state.word is Word.FINISHED and state.log_tail[-1] == "line 29"  # read here although the pod is gone
        (life,) = cloud.lives.values()
        assert life.ended is not None and ended.started is not None
        real = (life.ended - life.created) / 3600 * life.usd_per_hour
        assert ended.spent(time.time() + 3600) == pytest.approx(real, abs=0.05)
        assert [target.name for target in workspace.hosts.targets.all()] == ["local"]
        assert list((tmp_path / "home" / "keys").iterdir()) == []
        text = (tmp_path / "home" / "mirror" / "evening" / "logs" / "00-rent.log").read_text()
        assert "waiting until the pod answers" in text and "gone; nothing bills" in text


CRASHES = [
    (RentalBook, "open", "after"), (RunPod, "create", "before"), (RunPod, "create", "after"),
    (PodBench, "reach", "after"), (PodBench, "prepare", "after"), (job, "launch", "before"), (job, "launch", "after"),
    (PodBench, "back_up", "before"), (PodBench, "back_up", "after"), (PodBench, "unproven", "after"),
    (RunPod, "terminate", "before"), (RunPod, "terminate", "after"), (PodBench, "forget", "after"),
]


# Each life takes some seconds, so the suite tries the ones where most could go wrong.
TRIED = CRASHES if os.environ.get("LLMCONSOLE_ALL_KILLS") else [CRASHES[i] for i in (1, 2, 6, 8, 11)]


@pytest.mark.parametrize(("owner", "name", "when"), TRIED, ids=[f"{when}-{name}" for _, name, when in TRIED])
@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_kill_9_at_any_step_ends_the_same(cloud: FakeCloud, write_recipe: Any, owner: Any, name: str, when: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe()
    child = os.fork()
    if child == 0:
        original = getattr(owner, name)

        def dying(*args: Any, **kwargs: Any) -> None:
            if when == "after":
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, dying)
        try:
            doomed = Workspace.open()
            to_the_end(doomed, doomed.operator.rentals.rent(quote(doomed, "short")))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    monkeypatch.setattr(rental_steps, "SETTLE_S", 3.0)  # a create that was never sent is given up after so long
    with Workspace.open(patience=2) as workspace:
        (rental,) = workspace.operator.rentals.book.all()
        ended = to_the_end(workspace, rental)
        assert living(cloud) == []
        if (name, when) == ("create", "before"):
            assert ended.phase is Phase.NEVER and cloud.creates == 0
            return
        assert ended.phase is Phase.GONE and cloud.creates == 1
        assert workspace.operator.state("evening").word is Word.FINISHED
        attempts = [intent for intent in workspace.operator.ledger.intents("evening") if intent.action == "start"]
        assert len(attempts) == 1 and attempts[0].outcome == "launched"


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_a_reply_that_is_lost_leads_to_one_pod(cloud: FakeCloud, write_recipe: Any) -> None:
    cloud.plan("reply_lost")
    with Workspace.open() as workspace:
        ended = to_the_end(workspace, workspace.operator.rentals.rent(quote(workspace, write_recipe())))
        assert ended.phase is Phase.GONE and cloud.creates == 1 and living(cloud) == []


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
@pytest.mark.parametrize("fault", ["pod_error", "terminate_ignored", "rate_limited", "no_fingerprint"])
def test_faults_of_the_provider_end_well(cloud: FakeCloud, write_recipe: Any, fault: str) -> None:
    with Workspace.open() as workspace:
        offer = quote(workspace, write_recipe())
        cloud.plan(fault, 2)
        ended = to_the_end(workspace, workspace.operator.rentals.rent(offer), 90)
        assert ended.phase is Phase.GONE and living(cloud) == []
        assert ("ERROR" in ended.reason) is (fault == "pod_error")


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_an_error_of_the_provider_is_never_answered_with_a_second_create(cloud: FakeCloud, write_recipe: Any,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rental_steps, "SETTLE_S", 1.0)
    with Workspace.open() as workspace:
        offer = quote(workspace, write_recipe())
        cloud.plan("error_before")
        ended = to_the_end(workspace, workspace.operator.rentals.rent(offer))
        assert ended.phase is Phase.NEVER and cloud.creates == 0


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_links_that_are_cut_and_ports_that_move_change_nothing(cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = rentals.rent(quote(workspace, write_recipe(title="sleep:6")))
        rentals.drive(rental.id, lambda now: now.phase is Phase.WORKING, lambda _: None)
        (life,) = cloud.lives.values()
        assert life.container is not None
        life.container.drop()
        life.container.move_port()
        ended = to_the_end(workspace, rental)
        assert ended.phase is Phase.GONE and workspace.operator.state("evening").word is Word.FINISHED


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_the_budget_saves_and_ends_a_run_that_takes_too_long(cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = rentals.rent(quote(workspace, write_recipe(title="sleep:600")))
        rentals.drive(rental.id, lambda now: now.phase is Phase.WORKING, lambda _: None)
        rentals.book.change(rental.id, time.time(), budget_hours=0.002, detail=dict(rental.detail))
        ended = to_the_end(workspace, rental)
        assert ended.phase is Phase.GONE and "budget" in ended.reason
        assert workspace.operator.state("evening").word is Word.STOPPED  # it was asked to save, and did


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_what_exists_only_there_keeps_the_pod(cloud: FakeCloud, write_recipe: Any,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PodBench, "unproven", lambda *_: ["base d4 step 100 (0.02 GB): there is no proven copy of it"])
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = rentals.rent(quote(workspace, write_recipe()))
        kept = rentals.drive(rental.id, lambda now: now.phase is Phase.KEPT, lambda _: None)
        assert kept.phase is Phase.KEPT and len(living(cloud)) == 1
        assert "no proven copy" in rentals.money().shout
        rentals.end(rental.id, now=True)  # a person typed the name
        assert to_the_end(workspace, rental).phase is Phase.GONE and living(cloud) == []


def test_no_budget_rents_nothing(cloud: FakeCloud, workspace: Workspace, write_recipe: Any) -> None:
    offer = quote(workspace, write_recipe(), budget_usd=0.0)
    with pytest.raises(Refused, match="a budget"):
        workspace.operator.rentals.rent(offer)
    assert cloud.creates == 0 and workspace.operator.rentals.book.all() == []
    with pytest.raises(UsageProblem, match="no number of GPUs"):
        workspace.operator.rentals.quote("short", budget_usd=1, budget_hours=1, gpus="0xH100")


@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_a_higher_limit_moves_the_timer_inside_the_pod(cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = rentals.rent(quote(workspace, write_recipe(title="sleep:30")))
        rentals.drive(rental.id, lambda now: now.phase is Phase.WORKING, lambda _: None)
        before = rentals.book.get(rental.id).deadline
        after = rentals.set_limit(rental.id, 40.0, 2.0)
        assert after.deadline > before + 3000
        (life,) = cloud.lives.values()
        assert life.container is not None
        written = (life.container.home / ".llmconsole" / "deadline").read_text()
        assert int(written) == int(after.deadline)
        rentals.end(rental.id)
        assert to_the_end(workspace, rental).phase is Phase.GONE


def test_the_bench_forgets_only_its_own(workspace: Workspace) -> None:
    assert rental_bench.target_name(Rental("r-abcdef", "r", "sim", Phase.ASKED, 1, 1, 0.0)) == "pod-abcdef"




@pytest.mark.usefixtures("stand_in", "cheap_bootstrap")
def test_a_run_whose_machine_was_given_back_is_not_resumed(cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rental = workspace.operator.rentals.rent(quote(workspace, write_recipe(title="exit:1")))
        assert to_the_end(workspace, rental).phase is Phase.GONE and living(cloud) == []
        assert workspace.operator.state("evening").word is Word.FAILED
        with pytest.raises(Conflict, match="was given back"):
            workspace.operator.resume("evening")

"""A failed run on a rented machine: kept for a bounded time at a shown price, resumed there, or given back safely.

Also here: limits that change before the pod can be reached, and a create that was answered with an error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import call
from console.credentials import MissingCredential
from console.errors import Conflict, Refused, UsageProblem
from console.machines import preparing
from console.rental import steps as rental_steps
from console.rental.rental import Phase, Rental, sentence
from console.runstate import Word
from console.settings import RentSettings
from console.workspace import Workspace
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod

KEEPS = RentSettings(gpus="2xA100", hold_minutes=10)
pytestmark = pytest.mark.usefixtures("stand_in", "prepared_pods")


@pytest.fixture
def evening_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    found = FakeCloud(tmp_path / "cloud", placing_s=0.1, pulling_s=0.1)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    with FakeRunPod(found) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        yield found


@pytest.fixture
def prepared_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    import remote.bootstrap

    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)


def rent(workspace: Workspace, recipe: str, settings: RentSettings = KEEPS) -> Rental:
    rentals = workspace.operator.rentals
    return rentals.rent(rentals.quote(recipe, run_id="evening", settings=settings, budget_usd=20.0, budget_hours=1.0))


def until(workspace: Workspace, rental: Rental, *phases: Phase, seconds: float = 40.0) -> Rental:
    ends = time.monotonic() + seconds
    found = workspace.operator.rentals.drive(
        rental.id, lambda now: now.phase in phases or time.monotonic() > ends, lambda _: None)
    assert found.phase in phases, found
    workspace.ingest()
    return found


def test_a_failed_run_is_held_made_safe_and_resumed_there(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = until(workspace, rent(workspace, write_recipe(title="exit:3")), Phase.HELD)
        assert rental.reason == "the run failed: exit 3" and 500 < rental.hold_left(time.time()) <= 600
        assert "$0.06 a minute" in sentence(rental, time.time())
        while not rentals.book.get(rental.id).proof:
            rentals.advance(rental.id)
        assert rentals.book.get(rental.id).proof == rental_steps.SAFE
        assert "FAILED; its machine is held 9:" in rentals.money().shout
        state = workspace.operator.state("evening")
        assert state.word is Word.FAILED and "held" in state.next
    with Workspace.open() as workspace:  # another console, later: the ledger knows that it is held
        rentals = workspace.operator.rentals
        assert workspace.operator.resume("evening") == 2
        assert rentals.book.get(rental.id).phase is Phase.STARTING
        ended = until(workspace, rental, Phase.GONE)
        assert workspace.operator.state("evening").word is Word.FINISHED and evening_cloud.creates == 1
        assert ended.attempt == 2 and all(life.ended for life in evening_cloud.lives.values())


def test_nobody_comes_so_it_is_copied_proven_and_given_back(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        short = replace(KEEPS, hold_minutes=0.02)
        ended = until(workspace, rent(workspace, write_recipe(title="exit:1"), short), Phase.GONE)
        assert ended.reason == "the run failed: exit 1; nobody resumed it in 0.02 min"
        phases = [entry.phase for entry in workspace.operator.rentals.book.journal(ended.id)]
        assert list(dict.fromkeys(phases))[-5:] == ["held", "copying", "proving", "ending", "gone"]
        with pytest.raises(Conflict, match="was given back"):
            workspace.operator.resume("evening")


def test_a_held_machine_is_given_back_when_somebody_says_so(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rental = until(workspace, rent(workspace, write_recipe(title="exit:1")), Phase.HELD)
        workspace.operator.rentals.end(rental.id)
        with pytest.raises(Conflict, match="too late"):
            workspace.operator.resume("evening")
        assert "ended as asked" in until(workspace, rental, Phase.GONE).reason


def test_a_hold_never_outlasts_the_budget(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = until(workspace, rent(workspace, write_recipe(title="exit:1")), Phase.HELD)
        rentals.book.change(rental.id, time.time(), budget_hours=0.0001)
        assert rentals.book.get(rental.id).hold_left(time.time()) == 0
        with pytest.raises(Refused, match="nearly used up"):
            workspace.operator.resume("evening")
        assert "budget" in until(workspace, rental, Phase.GONE).reason


def test_without_a_hold_it_is_given_back_as_soon_as_it_is_safe(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        ended = until(workspace, rent(workspace, write_recipe(title="exit:1"), replace(KEEPS, hold_minutes=0)),
                      Phase.GONE)
        assert "held" not in {entry.phase for entry in workspace.operator.rentals.book.journal(ended.id)}
        assert ended.reason == "the run failed: exit 1"


def test_a_limit_that_is_changed_before_there_is_an_address_reaches_the_timer(evening_cloud: FakeCloud,
                                                                             write_recipe: Any) -> None:
    evening_cloud.pulling_s = 3.0
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        rental = until(workspace, rent(workspace, write_recipe(title="sleep:20")), Phase.WAITING)
        assert not rental.timer_pending
        raised = rentals.set_limit(rental.id, 40.0, 2.0)
        assert raised.timer_pending and raised.deadline > raised.armed + 3000
        armed = until(workspace, rental, Phase.WORKING)
        assert not armed.timer_pending and armed.armed == raised.deadline
        (life,) = evening_cloud.lives.values()
        assert life.container is not None
        assert int((life.container.home / ".llmconsole" / "deadline").read_text()) == int(raised.deadline)
        with pytest.raises(UsageProblem, match="more than 0"):
            rentals.set_limit(rental.id, 0.0, None)
        lowered = rentals.set_limit(rental.id, 0.01, None)  # used up: time is left to save and copy
        assert lowered.deadline > time.time() + 1500 and lowered.guard_in(time.time()) < 10
        assert "budget" in until(workspace, rental, Phase.GONE).reason


def test_an_error_after_a_create_is_looked_up_at_once(evening_cloud: FakeCloud, write_recipe: Any,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace.open() as workspace:
        rental = rent(workspace, write_recipe())
        evening_cloud.plan("error_after")
        evening_cloud.plan("hidden", seconds=1.0)
        begun = time.monotonic()
        until(workspace, rental, Phase.WAITING)
        notes = [entry.text for entry in workspace.operator.rentals.book.journal(rental.id)]
        assert time.monotonic() - begun < 10 and evening_cloud.creates == 1
        assert any("answered the create with 500" in text for text in notes)
        assert call(["target", "log", "evening", "--source", "system", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["lines"][0]["text"].startswith("create pod")
        assert any("looking for the pod by its name" in text and "of 180 s" in text for text in notes)
        assert until(workspace, rental, Phase.GONE) and evening_cloud.creates == 1


def test_a_balance_that_ends_before_the_limit_is_said_in_time(evening_cloud: FakeCloud, write_recipe: Any) -> None:
    with Workspace.open() as workspace:
        rentals = workspace.operator.rentals
        evening_cloud._deposit = 4.0
        quote = rentals.quote(write_recipe(title="sleep:30"), run_id="evening", settings=KEEPS, budget_usd=20.0,
                              budget_hours=5.0)
        assert any("the balance lasts 1.1 h" in text for text in quote.plan.warnings)
        rental = until(workspace, rentals.rent(quote), Phase.WORKING)
        assert "then the provider ends every pod" in rentals.balance_trouble()
        evening_cloud._deposit = 500.0
        assert rentals.balance_trouble() == ""
        rentals.end(rental.id)
        assert until(workspace, rental, Phase.GONE)


def test_a_pod_with_fewer_gpus_than_were_paid_for_is_given_back(evening_cloud: FakeCloud, write_recipe: Any,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from remote.survey import Survey

    bare = Survey("Linux", "", "x86_64", "h", "u", "/", 1, 1, 0.0)
    monkeypatch.setattr("remote.survey.survey", lambda *_, **__: bare)
    with Workspace.open() as workspace:
        monkeypatch.setattr(Survey, "problems", lambda self: [])
        ended = until(workspace, rent(workspace, write_recipe()), Phase.GONE)
        assert ended.reason == f"it could not be prepared: 0 of 2 GPUs answer on {ended.detail['target']}"


def test_a_wait_that_takes_too_long_is_said_with_what_it_goes_on_to_cost(evening_cloud: FakeCloud, write_recipe: Any,
                                                                        capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(title="sleep:60")
    words = ["run", "start", "short", "--target", "runpod", "--gpus", "2xA100", "--budget", "20", "--hours", "1",
             "--id", "evening", "--hold", "0", "--yes", "--wait", "--timeout", "3"]
    assert call(words) == 124
    said = capsys.readouterr().err
    assert "its machine goes on and bills $3.58/h" in said and "keeps its machine" not in said
    assert call(["target", "down", "evening", "--yes"]) == 0
    assert all(life.ended for life in evening_cloud.lives.values())


def test_a_place_for_copies_that_cannot_be_used_is_said_before_anything_is_paid_for(
        evening_cloud: FakeCloud, write_recipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.chdir(tmp_path)
    with Workspace.open() as workspace:
        recipe = write_recipe()
        with pytest.raises(MissingCredential, match="HF_TOKEN"):
            rent(workspace, recipe, replace(KEEPS, backup="hub:me/models"))
        with pytest.raises(UsageProblem, match="neither hub"):
            rent(workspace, recipe, replace(KEEPS, backup="hub-me"))
        assert evening_cloud.creates == 0 and workspace.operator.rentals.book.all() == []

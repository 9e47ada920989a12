"""Rented machines: no life leaks or doubles a pod whatever fails or is killed, and money is counted to the cent."""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.rental.money import money
from console.rental.offers import detail_of
from console.rental.rental import Phase, Rental, level, reserve_s, sentence
from console.rental.steps import Renter
from console.rental.sweep import sweep
from remote import provider as words
from remote.errors import BalanceExhausted, CredentialRefused, ProviderDown, RemoteError

BENCH = Path(__file__).parents[1] / "bench" / "sim_rentals.py"


def load_simulation() -> Any:
    spec = importlib.util.spec_from_file_location("sim_rentals", BENCH)
    assert spec is not None and spec.loader is not None
    module = sys.modules["sim_rentals"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sim = load_simulation()


@pytest.mark.timeout(600)  # it computes for some seconds, which a busy machine makes many
def test_no_life_of_two_thousand_leaks_doubles_or_loses() -> None:
    counts = sim.simulate(2000, seed=7)
    assert counts["created"] > 1500
    assert (counts["leaked"], counts["doubled"], counts["wrong"]) == (0, 0, 0)


def test_pods_end_themselves_when_nobody_returns() -> None:
    assert sim.simulate_dead(300, seed=3) <= 300


class RepeatsTheCreate(Renter):
    """What most tools do: no answer and nothing listed, so ask again."""

    def _creating(self, rental: Rental) -> float:
        found = self._provider.find_by_name(rental.name)
        return self._adopt(rental, found[0]) if found else self._to(rental, Phase.ASKED)


class BelievesTheDelete(Renter):
    """A 204 is taken for the end."""

    def _ending(self, rental: Rental) -> float:
        self._provider.terminate(rental.pod)
        return self._gone(rental, "")


class ProvesNothing(Renter):
    def _proving(self, rental: Rental) -> float:
        return self._to(rental, Phase.ENDING)


@pytest.mark.parametrize("kind", [RepeatsTheCreate, BelievesTheDelete, ProvesNothing])
def test_the_simulation_sees_what_goes_wrong_elsewhere(kind: type[Renter], capsys: pytest.CaptureFixture[str]) -> None:
    counts = sim.simulate(300, seed=2, kind=kind)
    assert counts["doubled"] + counts["wrong"] + counts["leaked"] > 0


def a_rental(**values: Any) -> Rental:
    base = Rental("r1", "run1", "sim", Phase.WORKING, 120.0, 4.0, 0.0, name="n", pod="p", usd_per_hour=24.0, posted=0.0)
    return replace(base, **values)


def test_money_follows_the_providers_clock_to_the_cent() -> None:
    rental = a_rental(seen=1000.0, seen_elapsed=3600.0)
    assert rental.spent(1000.0) == pytest.approx(24.00)
    assert rental.spent(1000.0 + 1800) == pytest.approx(36.00)
    assert rental.spent(1000.0 - 86_400) == pytest.approx(24.00)  # our clock was set back a day
    ended = replace(rental, ended=1900.0)
    assert ended.spent(1e9) == pytest.approx(30.00)
    assert replace(ended, billed_usd=29.87).spent(1e9) == 29.87


@pytest.mark.parametrize(("share", "colour"), [(0.79, ""), (0.80, "amber"), (0.949, "amber"), (0.95, "red")])
def test_the_meter_changes_colour(share: float, colour: str) -> None:
    assert level(share) == colour


def test_copies_that_cannot_be_made_are_shouted() -> None:
    trying = a_rental(phase=Phase.COPYING, note="the token is refused (try 3)", tries=2)
    assert money([trying], 0.0).shout == ""
    assert "NOT SAFE TO END" in money([replace(trying, tries=3)], 0.0).shout


def test_the_guard_leaves_time_to_save_copy_and_prove() -> None:
    rental = a_rental(seen=0.0, seen_elapsed=0.0)  # $120 at $24/h would be 5 h, but 4 h were allowed
    assert rental.limit_hours == 4.0
    assert rental.guard_in(0.0) == 4 * 3600 - reserve_s(4.0) == 4 * 3600 - 1800
    assert a_rental(budget_usd=24.0).limit_hours == 1.0
    assert reserve_s(0.01) == pytest.approx(18.0)


def drive(cloud: Any, book: Any, rental: Rental, seconds: float = 40_000.0) -> Rental:
    """One life without crashes."""
    renter = Renter(book, cloud, sim.Machine(cloud), sim.compose(cloud), now=lambda: cloud.now, jitter=lambda: 0.5)
    until = cloud.now + seconds
    while cloud.now < until:
        pause = renter.advance(rental.id)
        if book.get(rental.id).settled:
            break
        cloud.now += max(min(pause, 600.0), 0.2)
    return book.get(rental.id)


def begin(cloud: Any, book: Any, **values: Any) -> Rental:
    detail = detail_of(words.Want(), [sim.OFFER], bool(values.pop("wait", False)))
    rental = Rental("r1", "run1", "sim", Phase.ASKED, 50.0, 2.0, cloud.now, usd_per_hour=24.0, detail=detail)
    return book.open(replace(rental, **values))


@pytest.fixture
def quiet() -> tuple[Any, Any]:
    """A cloud without faults, and an empty ledger."""
    cloud = sim.Cloud(random.Random(1), 0.0)
    cloud.life.job_s = 1500.0
    return cloud, sim.new_book()


def test_a_life_without_faults_tells_every_phase(quiet: tuple[Any, Any]) -> None:
    cloud, book = quiet
    ended = drive(cloud, book, begin(cloud, book))
    assert ended.phase is Phase.GONE and not cloud._alive()
    phases = list(dict.fromkeys(entry.phase for entry in book.journal("r1")))
    assert phases[:6] == ["asked", "creating", "waiting", "preparing", "starting", "working"]
    assert phases[-4:] == ["copying", "proving", "ending", "gone"]
    (pod,) = cloud.pods_now.values()
    assert ended.spent(cloud.now) == pytest.approx((pod["ended"] - pod["created"]) / 3600 * 24, abs=0.05)


def test_a_pod_with_something_only_on_it_is_kept_until_its_deadline(quiet: tuple[Any, Any]) -> None:
    cloud, book = quiet
    cloud.life.copies_fail = True
    ended = drive(cloud, book, begin(cloud, book))
    (pod,) = cloud.pods_now.values()
    assert ended.phase is Phase.GONE and not cloud.life.wrong and pod["ended"] >= ended.deadline - 1
    assert any(entry.phase == "kept" and "no proven copy" in entry.text for entry in book.journal("r1"))


def test_a_pod_that_is_killed_from_the_providers_page_is_noticed(quiet: tuple[Any, Any]) -> None:
    cloud, book = quiet
    rental = begin(cloud, book)
    drive(cloud, book, rental, seconds=700)
    cloud.now += 300
    for pod in cloud._alive():
        pod["ended"] = cloud.now
    ended = drive(cloud, book, rental)
    assert ended.phase is Phase.GONE and ended.reason == "the pod was ended elsewhere"


@pytest.mark.parametrize("error", [BalanceExhausted("the balance is used up"), CredentialRefused("401: the key")])
def test_what_the_provider_refuses_for_good_is_said(quiet: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch,
                                                    error: RemoteError) -> None:
    cloud, book = quiet

    def refuse(spec: words.PodSpec) -> None:
        raise error

    monkeypatch.setattr(cloud, "create", refuse)
    ended = drive(cloud, book, begin(cloud, book))
    assert ended.phase is Phase.NEVER and ended.reason == str(error)
    assert "nothing was rented" in sentence(ended, cloud.now)


def test_a_failed_listing_is_an_error_and_never_clean(quiet: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, book = quiet
    monkeypatch.setattr(cloud, "pods", lambda prefix="": (_ for _ in ()).throw(ProviderDown("502")))
    with pytest.raises(ProviderDown):
        sweep(book, cloud)


def test_the_sweep_knows_ours_from_strangers(quiet: tuple[Any, Any]) -> None:
    cloud, book = quiet
    rental = begin(cloud, book)
    drive(cloud, book, rental, seconds=500)
    stranger = words.PodSpec(words.pod_name("other", cloud.now + 60), "i", "H100", 8, (), "k")
    cloud.pods_now["9"] = {**next(iter(cloud.pods_now.values())), "id": "9", "name": stranger.name, "timer": 1e18}
    cloud.now += 100
    found = sweep(book, cloud, lambda: cloud.now)
    assert found.reopened == () and [stray.run for stray in found.strays] == ["other"]
    book.change("r1", cloud.now, phase=Phase.GONE)
    assert sweep(book, cloud, lambda: cloud.now).reopened == ("r1",)
    assert book.get("r1").phase is Phase.ENDING
    assert drive(cloud, book, rental).phase is Phase.GONE


def test_withdrawing_before_anything_was_asked_rents_nothing(quiet: tuple[Any, Any]) -> None:
    cloud, book = quiet
    rental = begin(cloud, book, end_asked="safely")
    assert drive(cloud, book, rental).phase is Phase.NEVER and cloud.life.creates == 0

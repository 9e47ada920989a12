"""Evenings on which something goes wrong, each on a virtual clock: the right end, the right words, the right cents.

Ledger, operator, provider's client, HTTP and the provider's double are the real ones; only the machine behind the pod
is a few lines here, because what it computes does not matter. The console's clock and the provider's may differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from console.rental import steps, sweep
from console.rental.rental import Phase, Rental, sentence
from console.settings import RentSettings
from console.workspace import Workspace
from remote.errors import HostUnreachable, RunnerFailed
from remote.fake_runpod import cloud as cloud_module
from remote.fake_runpod.cloud import FakeCloud, Life
from remote.fake_runpod.server import FakeRunPod
from remote.provider import parse_pod_name
from remote.runpod import log_stream
from remote.runpod.client import RunPod
from remote.secret_text import Secret

HOUR, DAY = 3600.0, 86_400.0
RUN_S = 600.0  # how long the run works, if nobody stops it


class Container:
    """A pod that only has an address."""

    def __init__(self, *_: Any) -> None:
        self.port, self.exited = 2222, False

    def start(self) -> None: ...

    def end(self) -> None: ...


@dataclass
class World:
    """The provider's time is `now`; the console's clock shows `skew` seconds more. It is the machine, too."""

    cloud: FakeCloud = field(init=False)
    now: float = 1.8e9
    skew: float = 0.0
    work_ends: float | None = None
    safe: bool = False
    link: Callable[[str], None] = lambda step: None
    timers: dict[str, float] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now + self.skew

    @property
    def life(self) -> Life:
        (found,) = self.cloud.lives.values()
        return found

    def timers_run(self) -> None:
        """The loop inside each pod, which goes by the provider's clock."""
        for life in self.cloud.lives.values():
            told = parse_pod_name(life.body["name"])
            assert told is not None
            deadline = self.timers.get(life.id, told.deadline)
            if life.ended is None and self.now >= deadline:
                life.ended = max(deadline, life.running_since or life.created)
                self.cloud.end(life)

    # the bench

    def _step(self, name: str) -> None:
        self.link(name)
        if self.life.status != "RUNNING":
            raise HostUnreachable("nobody answers there")

    def reach(self, rental: Rental) -> None:
        self._step("reach")

    def prepare(self, rental: Rental) -> None:
        self._step("prepare")
        self.now += 120

    def extend(self, rental: Rental, deadline: float) -> None:
        self._step("extend")
        self.timers[rental.pod] = deadline

    def launch(self, rental: Rental) -> None:
        self._step("launch")
        self.work_ends = self.work_ends or self.now + RUN_S

    def running(self, rental: Rental) -> bool:
        self._step("running")
        return self.work_ends is not None and self.now < self.work_ends

    def failure(self, rental: Rental) -> str:
        return ""

    def stop(self, rental: Rental) -> None:
        self._step("stop")
        self.work_ends = min(self.work_ends or self.now, self.now + 20)

    def back_up(self, rental: Rental) -> None:
        self._step("back_up")
        self.now += 60
        self.safe = True

    def unproven(self, rental: Rental) -> list[str]:
        self._step("unproven")
        return [] if self.safe else ["base d20 step 500 (2.10 GB): there is no proven copy of it"]

    def forget(self, rental: Rental) -> None: ...

    def bring_home(self, rental: Rental) -> None: ...

    def interrupt(self, rental_id: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World()
    found.cloud = FakeCloud(tmp_path / "pods", clock=lambda: found.now, placing_s=20, pulling_s=70, spend_limit=1e4)
    monkeypatch.setattr(cloud_module, "FakePod", Container)
    monkeypatch.setattr(log_stream, "_QUIET", 0.02)  # after so long without a line, the log is taken for read
    monkeypatch.setattr(time, "time", found.clock)
    monkeypatch.setitem(steps.Renter.__init__.__kwdefaults__, "now", found.clock)
    monkeypatch.setitem(steps.Renter.__init__.__kwdefaults__, "jitter", lambda: 0.5)
    monkeypatch.setattr(sweep.sweep, "__defaults__", (found.clock,))
    yield found


@dataclass
class Evening:
    """A rented run that is carried on until the provider has confirmed its end."""

    world: World
    workspace: Workspace
    rental: Rental
    notes: list[str] = field(default_factory=list)

    def go(self, script: Callable[[World, float], None], hours: float = 12.0) -> Rental:
        rentals, begun = self.workspace.operator.rentals, self.world.now
        while self.world.now < begun + hours * HOUR:
            script(self.world, self.world.now - begun)
            self.world.timers_run()
            pause = rentals.advance(self.rental.id)
            row = rentals.book.get(self.rental.id)
            self.notes.append(sentence(row, self.world.clock()))
            if row.settled:
                return row
            self.world.now += min(max(pause, 0.5), 60.0)
        raise AssertionError(f"not over after {hours} h: {self.notes[-1]}")


@pytest.fixture
def rent(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_recipe: Any
         ) -> Iterator[Callable[..., Evening]]:
    opened: list[Any] = []

    def make(**settings: Any) -> Evening:
        server = FakeRunPod(world.cloud)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        workspace = Workspace.open()
        opened.extend([workspace, server])
        rentals = workspace.operator.rentals
        rentals._provider = RunPod(Secret(server.key), base=server.base, graphql=server.graphql, patience=0.0)
        rentals._bench = world  # type: ignore[assignment]
        quote = rentals.quote(write_recipe(), run_id="evening", budget_usd=90.0, budget_hours=4.0,
                              settings=RentSettings(**{"gpus": "8xH100", "hold_minutes": 0.0, **settings}))
        return Evening(world, workspace, rentals.rent(quote))

    yield make
    for each in opened:
        each.close()


def bill(evening: Evening) -> float:
    """What the ledger says once the provider's own records are there."""
    evening.world.now += 1000
    evening.workspace.operator.rentals.settle_bills()
    row = evening.workspace.operator.rentals.book.get(evening.rental.id)
    return row.spent(evening.world.clock())


# What happens on the way: called before each step with the world and the seconds since the decision.

def quiet(world: World, age: float) -> None:
    """Nothing."""


def once(at: float, happens: Callable[[World], None]) -> Callable[[World, float], None]:
    done: list[bool] = []

    def script(world: World, age: float) -> None:
        if age >= at and not done:
            done.append(True)
            happens(world)

    return script


def clock_jumps(world: World, age: float) -> None:
    world.skew = DAY if 300 < age < 450 else -DAY if 450 <= age < 600 else 0.0


def set_back_and_killed(world: World, age: float) -> None:
    world.skew = -DAY if age > 300 else 0.0
    if age >= 500 and world.life.ended is None:
        world.cloud.end(world.life)


def suspends(seconds: float, times: int = 10) -> Callable[[World, float], None]:
    left = [times]

    def script(world: World, age: float) -> None:
        if age > 400 and left[0] and world.work_ends:
            left[0] -= 1
            world.now += seconds

    return script


def lost_link(step: str, times: int, error: Exception | None = None) -> Callable[[World, float], None]:
    left = [times]

    def link(now: str) -> None:
        if now == step and left[0]:
            left[0] -= 1
            raise error or HostUnreachable("the link went down")

    def script(world: World, age: float) -> None:
        world.link = link

    return script


def plan(fault: str, times: int) -> Callable[[World, float], None]:
    return once(0, lambda world: world.cloud.plan(fault, times))


def no_stock_for_an_hour(world: World, age: float) -> None:
    for place in world.cloud.stock:
        world.cloud.stock[place] = "NONE" if age < HOUR else "HIGH"


def end(world: World) -> None:
    world.cloud.end(world.life)


def balance_to_zero(world: World) -> None:
    world.cloud._deposit -= world.cloud.balance - 0.001


SLACK_S = 66.0  # the meter may be off by one look at the provider, until its bill is there


@dataclass(frozen=True)
class Row:
    name: str
    script: Callable[[World, float], None]
    reason: str
    said: str = ""  # on the way
    phase: Phase = Phase.GONE
    skew: float = 0.0
    words: dict[str, Any] = field(default_factory=dict)
    slack_s: float = SLACK_S
    minutes: tuple[float, float] = (0.0, 1e9)  # that the pod existed


ROWS = [
    Row("nothing goes wrong", quiet, "the run has ended", minutes=(14, 19)),
    Row("our clock is a day ahead", quiet, "the run has ended", skew=DAY, minutes=(14, 19)),
    Row("our clock is a day behind", quiet, "the run has ended", skew=-DAY, minutes=(14, 19)),
    Row("our clock jumps by days", clock_jumps, "the run has ended", minutes=(14, 25)),
    Row("our clock is set back, then the pod is killed", set_back_and_killed, "the pod was ended elsewhere",
        minutes=(8, 10)),
    Row("ten suspends of ten minutes", suspends(600), "the run has ended", minutes=(13, 120)),
    Row("a suspend beyond the deadline", suspends(20 * HOUR, 1), "the pod ended itself at its deadline",
        minutes=(168, 172)),
    Row("link lost in the middle of the bootstrap", lost_link("prepare", 4), "the run has ended", "the link went down"),
    Row("link lost for ever in the bootstrap", lost_link("prepare", 10**6), "could not be reached",
        minutes=(8, 30)),
    Row("disk full on the pod", lost_link("prepare", 9, RunnerFailed("No space left on device")),
        "could not be prepared: No space left on device", minutes=(1, 10)),
    Row("disk full here while copying", lost_link("back_up", 3, OSError(28, "No space left on device")),
        "the run has ended", "No space left on device"),
    Row("402", plan("no_balance", 1), "balance or spending limit", phase=Phase.NEVER),
    Row("403 for every offer", plan("not_allowed", 9), "may not do that: check the key's scope", phase=Phase.NEVER),
    Row("403 for one offer", plan("not_allowed", 1), "the run has ended", "check the key's scope"),
    Row("422", quiet, r"request \(422\) and would again", phase=Phase.NEVER, words={"min_cuda": "12"}),
    Row("429", plan("rate_limited", 3), "the run has ended", "RunPod asks to wait"),
    Row("500 before the effect", plan("error_before", 2), "did not say whether it made the pod", phase=Phase.NEVER),
    Row("reply lost", plan("reply_lost", 1), "the run has ended", "not asked for twice"),
    Row("the firewall in front", plan("edge", 2), "the run has ended", "firewall"),
    Row("no stock for an hour", no_stock_for_an_hour, "the run has ended", "nothing in stock", minutes=(14, 19)),
    Row("port never published", plan("no_port", 1), "nobody could log in", minutes=(2.5, 5),
        words={"ready_minutes": 3.0}),
    Row("stuck while starting", plan("stuck_starting", 1), "nobody could log in", minutes=(2.5, 5),
        words={"ready_minutes": 3.0}),
    Row("pod in ERROR", plan("pod_error", 1), "status is ERROR: error pulling image"),
    Row("killed on the provider's page", once(500, end), "the pod was ended elsewhere", minutes=(8, 10)),
    Row("balance to zero", once(500, balance_to_zero), "balance is used up", minutes=(8, 10)),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name.replace(" ", "-") for row in ROWS])
def test_it_ends_in_the_right_state_with_the_right_words_and_cents(row: Row, world: World,
                                                                   rent: Callable[..., Evening]) -> None:
    import re

    world.skew = row.skew
    evening = rent(**row.words)
    ended = evening.go(row.script)
    assert ended.phase is row.phase, ended
    assert re.search(row.reason, ended.reason), ended.reason
    assert any(row.said in note for note in evening.notes), evening.notes
    living = [life for life in world.cloud.lives.values() if life.ended is None]
    assert living == [] and world.cloud.creates == (row.phase is Phase.GONE)
    if row.phase is Phase.NEVER:
        assert ended.spent(world.clock()) == 0.0
        return
    life = world.life
    real, lived = world.cloud.cost(life), (life.ended or 0.0) - life.created
    assert row.minutes[0] <= lived / 60 <= row.minutes[1], f"{lived / 60:.1f} min"
    assert abs(ended.spent(world.clock()) - real) <= row.slack_s / 3600 * life.usd_per_hour, (ended, real)
    assert bill(evening) == round(real, 2)

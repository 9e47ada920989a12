"""Lives of rented pods on a virtual clock, with faults of every kind and a crash anywhere: what leaks, what doubles.

    python tests/bench/sim_rentals.py [LIVES] [--faults 0.05] [--crashes 0.05] [--seed 1] [--jobs 2] [--dead]

Everything but the cloud, the machine behind a pod and the clock is the product's own code, ledger included. Each call
to the ledger, the provider or the machine may be the console's last, just before or just after its effect; how often
each of those moments was the last one is counted. `--dead` kills the console for ever at a random moment of each life
and asks how long after its deadline the pod billed. Prints one line of counts; the exit code is 1 when a pod leaked,
was made twice, or was ended with something only on it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from console.rental.book import RentalBook
from console.rental.offers import detail_of
from console.rental.rental import RESUMABLE, Phase, Rental
from console.rental.steps import Renter
from console.rental.sweep import sweep
from console.runlog import migrations
from remote import provider as words
from remote.errors import (
    BalanceExhausted,
    CreateUnknown,
    HostUnreachable,
    NoCapacity,
    NoSuchPod,
    ProviderDown,
    RateLimited,
    RemoteError,
)

RATE = 24.0
SHARD = 500  # lives that share one ledger and one seed


class Crash(BaseException):
    """kill -9 of the console."""

    seen: ClassVar[Counter[str]] = Counter()  # how often each moment was the last one, in this process

    def __init__(self, moment: str) -> None:
        super().__init__(moment)
        self.seen[moment] += 1


@dataclass
class Life:
    """What really happened, as only a simulator knows."""

    creates: int = 0
    job: str = "none"  # none | running | ended
    job_ends: float = 0.0
    precious: bool = False  # something exists only on the pod
    copies_fail: bool = False
    job_s: float | None = None  # how long the run takes; None: by chance
    fails: bool = False  # the run does not end well
    attempts: int = 1
    wrong: list[str] = field(default_factory=list)


class Cloud:
    """A provider and the machines behind its pods, misbehaving with probability `p` per call and kind."""

    name = "sim"

    def __init__(self, rng: random.Random, p: float) -> None:
        self.rng, self.p, self.now = rng, p, 1.7e9
        self.pods_now: dict[str, dict[str, Any]] = {}
        self.life = Life()
        self.asked_now = False

    def hit(self, scale: float = 1.0) -> bool:
        return self.rng.random() < self.p * scale

    def _trouble(self) -> None:
        if self.hit():
            raise ProviderDown("502")
        if self.hit():
            raise RateLimited("slow down", self.rng.uniform(1, 20))

    def _alive(self) -> list[dict[str, Any]]:
        for pod in self.pods_now.values():  # the timer inside the pod: from its deadline on, each minute until it works
            while pod["ended"] is None and self.now >= pod["timer"]:
                if not self.hit(4):
                    pod["ended"] = pod["timer"]
                pod["timer"] += 60.0
            if pod["ended"] is None and pod["killed"] <= self.now:
                pod["ended"] = pod["killed"]
        return [pod for pod in self.pods_now.values() if pod["ended"] is None]

    def _seen(self, pod: dict[str, Any]) -> bool:
        return self.now >= pod["created"] + pod["lag"]

    def _pod(self, raw: dict[str, Any]) -> words.Pod:
        age = self.now - raw["created"]
        status = words.TERMINATED if raw["ended"] is not None else words.ERROR if raw["broken"] and age > 90 else (
            words.RUNNING if age > raw["ready"] else words.PROVISIONING)
        ssh = words.Address("10.0.0.1", 1000 + int(raw["id"])) if status == words.RUNNING and raw["port"] else None
        return words.Pod(raw["id"], raw["name"], status, 0.0 if raw["ended"] else RATE, created=raw["created"],
                         started=raw["created"] + raw["ready"], ssh=ssh, uptime_s=max(age - raw["ready"], 0.0))

    # the provider

    def offers(self, want: words.Want) -> list[words.Offer]:
        self._trouble()
        return [OFFER]

    def create(self, spec: words.PodSpec) -> words.Pod:
        if self.hit():
            raise NoCapacity("none left", status=400)
        if self.hit(0.1):
            raise BalanceExhausted("no money", status=402)
        self._trouble()
        if self.hit():
            raise CreateUnknown("time-out before the effect")
        if any(pod["name"].startswith("llmconsole-") for pod in self._alive()):
            self.life.wrong.append("a second pod was created while the first lived")
        if spec.name in {pod["name"] for pod in self.pods_now.values()}:
            self.life.wrong.append("a name was used twice")
        self.life.creates += 1
        told = words.parse_pod_name(spec.name)
        assert told is not None
        number = str(len(self.pods_now) + 1)
        rng = self.rng
        raw = {"id": number, "name": spec.name, "created": self.now, "ended": None, "lag": rng.choice([0, 5, 60]),
               "ready": rng.uniform(20, 300), "broken": self.hit(), "port": not self.hit(), "timer": told.deadline,
               "killed": self.now + rng.uniform(60, 2000) if self.hit() else 1e18}
        self.pods_now[number] = raw
        if self.hit():
            raise CreateUnknown("500 after the effect")
        return self._pod(raw)

    def find_by_name(self, name: str) -> list[words.Pod]:
        self._trouble()
        return [pod for pod in self.pods() if pod.name == name]

    def pods(self, prefix: str = words.NAME_PREFIX) -> list[words.Pod]:
        self._trouble()
        self._alive()
        return [self._pod(raw) for raw in self.pods_now.values() if self._seen(raw) and (
            raw["ended"] is None or self.now - raw["ended"] < 60)]

    def get(self, pod_id: str) -> words.Pod | None:
        self._trouble()
        self._alive()
        raw = self.pods_now[pod_id]
        return self._pod(raw) if self._seen(raw) and (raw["ended"] is None or self.now - raw["ended"] < 60) else None

    def terminate(self, pod_id: str) -> None:
        self._trouble()
        raw = self.pods_now[pod_id]
        self._alive()
        if not self._seen(raw):
            raise NoSuchPod("404")
        if self.hit():
            return  # it said yes and did nothing
        if raw["ended"] is None:
            if self.life.precious and not self.asked_now:
                self.life.wrong.append("ended with something that existed only there")
            raw["ended"] = self.now
        if self.hit():
            raise ProviderDown("time-out after the effect")

    def is_gone(self, pod_id: str) -> bool:
        self._trouble()
        self._alive()
        return self.pods_now[pod_id]["ended"] is not None or not self._seen(self.pods_now[pod_id])

    def clock(self) -> float:
        return self.now

    def account(self) -> words.Account:
        return words.Account()

    def log(self, pod_id: str, *, source: str = "", tail: int = 100) -> list[words.LogLine]:
        self._trouble()
        return []


class Machine:
    """The bench: the machine behind the one pod of a life."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def _link(self, rental: Rental) -> None:
        if self.cloud.hit():
            raise HostUnreachable("link down")
        if self.cloud.pods_now[rental.pod] not in self.cloud._alive():
            raise HostUnreachable("nobody answers")

    def reach(self, rental: Rental) -> None:
        self._link(rental)

    def prepare(self, rental: Rental) -> None:
        self._link(rental)
        self.cloud.now += self.cloud.rng.uniform(5, 60)
        self._link(rental)

    def extend(self, rental: Rental, deadline: float) -> None:
        self._link(rental)
        self.cloud.pods_now[rental.pod]["timer"] = deadline
        self._link(rental)

    def launch(self, rental: Rental) -> None:
        self._link(rental)
        life = self.cloud.life
        if life.job == "none" or rental.attempt > life.attempts:
            life.job, life.precious, life.attempts = "running", True, rental.attempt
            life.job_ends = self.cloud.now + (life.job_s or self.cloud.rng.choice([30, 300, 1500, 9000]))
        self._link(rental)

    def running(self, rental: Rental) -> bool:
        self._link(rental)
        life = self.cloud.life
        if life.job == "running" and self.cloud.now >= life.job_ends:
            life.job = "ended"
        return life.job == "running"

    def failure(self, rental: Rental) -> str:
        self._link(rental)
        return "the run failed: exit 1" if self.cloud.life.fails else ""

    def stop(self, rental: Rental) -> None:
        self._link(rental)
        if self.cloud.life.job == "running":
            self.cloud.life.job_ends = min(self.cloud.life.job_ends, self.cloud.now + 20)
        self._link(rental)

    def back_up(self, rental: Rental) -> None:
        self._link(rental)
        self.cloud.now += self.cloud.rng.uniform(5, 120)
        self._link(rental)
        if not self.cloud.life.copies_fail and not self.cloud.hit():
            self.cloud.life.precious = False

    def unproven(self, rental: Rental) -> list[str]:
        self._link(rental)
        return ["base step 100: there is no proven copy of it"] if self.cloud.life.precious else []

    def bring_home(self, rental: Rental) -> None:
        pass  # a model that is talked to afterwards bills nothing

    def forget(self, rental: Rental) -> None:
        if any(pod["name"] == rental.name for pod in self.cloud._alive()):
            self.cloud.life.wrong.append("forgotten while it billed")


OFFER = words.Offer("H100", "H100 SXM", 8, 80, "SECURE", "EU-1", "Europe", "HIGH", RATE)


class Crashing:
    """Another object whose every call may be the console's last, before or after its effect."""

    def __init__(self, inner: Any, rng: random.Random, p: float, names: frozenset[str] = frozenset()) -> None:
        self._inner, self._rng, self._p, self._names = inner, rng, p, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or (self._names and name not in self._names):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._rng.random() < self._p / 2:
                raise Crash(f"before {name}")
            result = found(*args, **kwargs)
            if self._rng.random() < self._p / 2:
                raise Crash(f"after {name}")
            return result

        return call


def new_book() -> RentalBook:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for step in migrations.LEDGER:
        step(connection)
    return RentalBook(lambda: connection, lambda: connection, threading.RLock())


def compose(cloud: Cloud) -> Callable[[Rental, words.Offer], words.PodSpec]:
    def make(rental: Rental, offer: words.Offer) -> words.PodSpec:
        name = words.pod_name(rental.run, cloud.now + rental.limit_hours * 3600)
        return words.PodSpec(name, "image", offer.gpu, offer.count, ("arm",), "ssh-ed25519 AAAA")

    return make


def one_life(number: int, book: RentalBook, rng: random.Random, faults: float, crashes: float,
             dead_after: float = 1e18, kind: type[Renter] = Renter) -> tuple[Cloud, Rental]:
    """From the intent to the end; the cloud as it is then, and the ledger's row."""
    cloud = Cloud(rng, faults)
    cloud.life.copies_fail = rng.random() < faults / 2
    cloud.life.fails, resumes = rng.random() < 0.2, rng.random() < 0.5
    begin = cloud.now
    hours = rng.choice([0.2, 0.5, 2.0])
    want = words.Want()
    start = Rental(f"r{number}", f"run{number}", "sim", Phase.ASKED, rng.choice([5.0, 50.0]), hours, cloud.now,
                   usd_per_hour=RATE, hold_s=rng.choice([0.0, 900.0]),
                   detail=detail_of(want, [OFFER, replace(OFFER, data_center="EU-2")], False))
    book.open(start)
    asks = cloud.now + rng.uniform(0, 3000) if rng.random() < 0.2 else 1e18
    machine = Machine(cloud)
    while True:
        renter = kind(Crashing(book, rng, crashes, frozenset({"change"})), Crashing(cloud, rng, crashes),  # type: ignore[arg-type]
                        Crashing(machine, rng, crashes), compose(cloud), now=lambda: cloud.now, jitter=rng.random)
        try:
            if rng.random() < 0.5:
                sweep(book, Crashing(cloud, rng, crashes), lambda: cloud.now)
            while True:
                row = book.get(start.id)
                if row.settled and not cloud._alive():
                    return cloud, row
                if cloud.now > begin + 40 * 3600 or cloud.now > begin + dead_after:
                    return cloud, row
                if cloud.now > asks and not row.end_asked:
                    cloud.asked_now = rng.random() < 0.3
                    book.change(start.id, cloud.now, end_asked="now" if cloud.asked_now else "safely")
                if row.phase is Phase.HELD and resumes and rng.random() < 0.1:  # a person comes to look
                    cloud.life.fails, resumes = rng.random() < 0.5, False
                    book.change(start.id, cloud.now, expect=RESUMABLE, phase=Phase.STARTING, attempt=2, proof="")
                for pod in cloud._alive():
                    if book.named(pod["name"]) is None:
                        cloud.life.wrong.append("a pod that the ledger does not name")
                pause = renter.advance(start.id)
                if row.settled:  # something lives that the row thinks gone: the next start's sweep finds it
                    raise Crash("restart")
                cloud.now += max(min(pause, 3600.0), 0.2)
        except Crash:
            cloud.now += rng.uniform(1, 300)
        except RemoteError:  # the sweep's listing failed: it is an error, and tried again
            cloud.now += 30


def simulate(lives: int, faults: float = 0.05, crashes: float = 0.05, seed: int = 1,
             kind: type[Renter] = Renter) -> dict[str, int]:
    """Counts over many lives; the first eight that went wrong are printed. `kind` may be a worse Renter."""
    rng, book = random.Random(seed), new_book()
    counts = {"lives": lives, "created": 0, "leaked": 0, "doubled": 0, "wrong": 0}
    for number in range(lives):
        cloud, row = one_life(number, book, rng, faults, crashes, kind=kind)
        counts["created"] += cloud.life.creates
        counts["leaked"] += bool(cloud._alive()) or not row.settled
        counts["doubled"] += cloud.life.creates > 1 and any("second" in text for text in cloud.life.wrong)
        counts["wrong"] += bool(cloud.life.wrong)
        if (cloud.life.wrong or cloud._alive() or not row.settled) and counts["wrong"] + counts["leaked"] <= 8:
            print(f"life {number} of seed {seed}:", cloud.life.wrong[:3], cloud._alive(), row, file=sys.stderr)
    return counts


def simulate_dead(lives: int, faults: float = 0.05, seed: int = 1) -> float:
    """The console dies for ever in each life: the longest time after its deadline that a pod billed, in seconds."""
    rng, book, worst = random.Random(seed), new_book(), 0.0
    for number in range(lives):
        cloud, _ = one_life(number, book, rng, faults, 0.02, dead_after=rng.uniform(0, 5000))
        cloud.now += 6 * 3600
        cloud._alive()
        for pod in cloud.pods_now.values():
            told = words.parse_pod_name(pod["name"])
            assert told is not None and pod["ended"] is not None
            worst = max(worst, pod["ended"] - told.deadline)
    return worst


def shards(lives: int) -> list[tuple[int, int]]:
    """(number, lives) of each piece that one process works through with a ledger of its own."""
    return [(number, min(SHARD, lives - start)) for number, start in enumerate(range(0, lives, SHARD))]


def _shard(work: tuple[argparse.Namespace, int, int]) -> tuple[dict[str, int], float, Counter[str]]:
    args, number, lives = work
    Crash.seen.clear()
    seed = args.seed * 1_000_003 + number
    if args.dead:
        return {"lives": lives}, simulate_dead(lives, args.faults, seed), Crash.seen
    return simulate(lives, args.faults, args.crashes, seed), 0.0, Crash.seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lives", nargs="?", type=int, default=2000)
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--crashes", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--dead", action="store_true")
    args = parser.parse_args()
    started, counts, worst, moments = time.monotonic(), Counter[str](), 0.0, Counter[str]()
    with multiprocessing.Pool(args.jobs) as pool:
        for found, late, seen in pool.imap_unordered(_shard, [(args, *shard) for shard in shards(args.lives)]):
            counts.update(found)
            moments.update(seen)
            worst = max(worst, late)
    seconds = time.monotonic() - started
    if args.dead:
        print(f"{args.lives} lives, console dead for ever: at most {worst:.0f} s after the deadline, {seconds:.1f} s")
        return int(worst > 300)
    rarest = min(moments.items(), key=lambda item: item[1], default=("-", 0))
    print(f"{dict(counts)} {seconds:.1f} s; {sum(moments.values())} crashes at {len(moments)} kinds of moments, the "
          f"rarest ({rarest[0]}) {rarest[1]} times")
    return int(counts["leaked"] + counts["doubled"] + counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())

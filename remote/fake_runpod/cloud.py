"""What a double of RunPod remembers: stock, prices, pods and their lives, logs, the bill, the balance, planned faults.

Time comes from a clock that the caller may own; lives move on whenever somebody looks. Requests and replies have the
shapes of the published v2 specification and nothing else; how they travel is `remote.fake_runpod.server`'s business.
"""

from __future__ import annotations

import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote.fake_runpod.pod import FakePod

LIVING = ("PROVISIONING", "STARTING", "RUNNING")
FULL = ("There are no longer any instances available with the requested specifications. "
        "Please refresh and try again.")
CUDA = "13.0"  # that every driver here knows
RESTART_S = 2.0  # seconds between two starts of a container whose command ends
_LOG_LINES = 20_000
FAULTS = {
    "no_capacity": "a create is refused: nothing free",
    "no_balance": "a create is refused with 402",
    "not_allowed": "a create is refused with 403 by the API itself",
    "rate_limited": "a request is answered 429 with Retry-After 1",
    "reply_lost": "a create is carried out and the connection is cut before the reply",
    "error_after": "a create is carried out and answered with 500",
    "error_before": "a request is answered with 500 and has no effect",
    "edge": "a request is answered 403 by the firewall in front, as an HTML page",
    "hidden": "the next pod is not listed or found for `seconds`",
    "terminate_ignored": "a DELETE is answered 204 and nothing happens",
    "terminate_fails": "a DELETE is answered with 500 and nothing happens",
    "pod_error": "the next pod ends in ERROR while its image is pulled",
    "stuck_starting": "the next pod never leaves STARTING",
    "no_port": "the next pod never gets a public SSH port",
    "no_fingerprint": "the next pod's log does not show its host key",
    "log_drop": "a log stream is cut after three lines",
    "log_duplicate": "a log stream sends every line twice",
    "log_crlf": "a log stream ends its lines with CR LF",
    "log_huge": "a log stream starts with a line of 5 MB",
}


@dataclass(frozen=True)
class GpuKind:
    id: str
    name: str
    memory: int  # GB
    secure: float  # USD per GPU and hour
    community: float
    most: int


KINDS = (
    GpuKind("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 3.99, 2.69, 8),
    GpuKind("NVIDIA H100 NVL", "H100 NVL", 94, 3.19, 2.59, 8),
    GpuKind("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.89, 1.99, 8),
    GpuKind("NVIDIA H200", "H200 SXM", 141, 4.59, 3.59, 8),
    GpuKind("NVIDIA B200", "B200", 180, 6.79, 5.98, 8),
    GpuKind("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 1.79, 1.39, 8),
    GpuKind("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.69, 0.34, 8),
)
PLACES = {"US-KS-2": "US Kansas 2", "US-TX-3": "US Texas 3", "EU-RO-1": "EU Romania 1", "EUR-IS-1": "EUR Iceland 1"}
STOCK = {("NVIDIA H100 80GB HBM3", "US-KS-2"): "MEDIUM", ("NVIDIA H100 80GB HBM3", "EU-RO-1"): "LOW",
         ("NVIDIA H100 80GB HBM3", "US-TX-3"): "NONE", ("NVIDIA H200", "EUR-IS-1"): "HIGH",
         ("NVIDIA H100 NVL", "US-TX-3"): "HIGH", ("NVIDIA H100 PCIe", "US-KS-2"): "HIGH",
         ("NVIDIA A100-SXM4-80GB", "EU-RO-1"): "HIGH", ("NVIDIA GeForce RTX 4090", "EU-RO-1"): "HIGH"}


class Refused(Exception):
    """An answer other than success: status, and a sentence of the kind that the real one says."""

    def __init__(self, status: int, detail: str, errors: list[str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors


@dataclass
class LogRow:
    number: int
    source: str
    text: str
    ts: str

    @property
    def id(self) -> str:
        return f"{self.ts}/{self.number:012d}"


@dataclass
class Life:
    """One pod from its create on. Times are the clock's, in seconds."""

    id: str
    body: dict[str, Any]
    kind: GpuKind
    place: str
    created: float
    usd_per_hour: float
    faults: set[str]
    status: str = "PROVISIONING"
    running_since: float | None = None
    started: float | None = None  # the container, which is restarted when its command ends
    ended: float | None = None
    hidden_until: float = 0.0
    log: list[LogRow] = field(default_factory=list)
    container: FakePod | None = None
    key: str = field(default_factory=lambda: f"pod_{secrets.token_hex(16)}")


class FakeCloud:
    """The account. `folder` is where containers live; None makes pods that are only entries in a list.

    `placing_s` and `pulling_s` are how long a new pod stays in PROVISIONING and STARTING.
    """

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], float] = time.time, balance: float = 500.0,
                 spend_limit: float = 80.0, placing_s: float = 1.0, pulling_s: float = 2.0) -> None:
        self.folder, self.clock = folder, clock
        self.spend_limit, self.placing_s, self.pulling_s = spend_limit, placing_s, pulling_s
        self.stock = dict(STOCK)
        self.secrets: dict[str, str] = {}  # by name, as the account keeps them
        self.lives: dict[str, Life] = {}
        self.creates = 0
        self.base = ""  # where the pods reach this cloud; known once it listens
        self.guard = threading.RLock()
        self.changed = threading.Condition(self.guard)
        self._deposit = balance
        self._faults: dict[str, list[float]] = {}

    # Faults.

    def plan(self, fault: str, times: int = 1, seconds: float = 0.0) -> None:
        """The next `times` occasions go wrong in this way."""
        if fault not in FAULTS:
            raise ValueError(f"no such fault: {fault}; there are {', '.join(FAULTS)}")
        with self.guard:
            self._faults.setdefault(fault, []).extend([seconds] * times)

    def due(self, fault: str) -> bool:
        """Whether this fault is planned for now; it is used up."""
        with self.guard:
            planned = self._faults.get(fault)
            if planned:
                planned.pop(0)
            return planned is not None and (bool(planned) or self._faults.pop(fault) is not None)

    # Money.

    @property
    def spend_per_hour(self) -> float:
        with self.guard:
            return sum(life.usd_per_hour for life in self.lives.values() if life.status in LIVING)

    @property
    def balance(self) -> float:
        with self.guard:
            return self._deposit - sum(self.cost(life) for life in self.lives.values())

    def cost(self, life: Life, since: float = 0.0, until: float = 1e12) -> float:
        """USD charged for a pod in a stretch of time: by the second, from its create to its end."""
        begun, ended = max(life.created, since), min(life.ended or self.clock(), until)
        return max(ended - begun, 0.0) / 3600 * life.usd_per_hour

    # Lives.

    def create(self, body: dict[str, Any]) -> Life:
        """Raises Refused."""
        with self.guard:
            gpu = body["gpu"]
            kind = next((kind for kind in KINDS if kind.id == gpu["id"]), None)
            if kind is None:
                raise Refused(400, f"unknown gpu type {gpu['id']!r}")
            price = round((kind.secure if body.get("cloud", "SECURE") == "SECURE" else kind.community)
                          * gpu.get("count", 1), 4)
            self._afford(price)
            if self.due("no_capacity"):
                raise Refused(400, FULL)
            place = self._place(kind, gpu.get("count", 1), body.get("dataCenterIds") or [],
                                gpu.get("minCudaVersion") or "")
            self.creates += 1
            life = Life(secrets.token_hex(7), body, kind, place, self.clock(), price,
                        {fault for fault in ("pod_error", "stuck_starting", "no_port", "no_fingerprint")
                         if self.due(fault)})
            if self._faults.get("hidden"):
                life.hidden_until = self.clock() + self._faults["hidden"].pop(0)
            self.lives[life.id] = life
            self.say(life, "system", f"create pod {life.id} in {place}")
            return life

    def _afford(self, price: float) -> None:
        if self.due("not_allowed"):
            raise Refused(403, "access denied")
        if self.due("no_balance") or self.balance < price:
            raise Refused(402, f"insufficient balance: ${self.balance:.2f} left, one hour costs ${price:.2f}")
        if self.spend_per_hour + price > self.spend_limit:
            raise Refused(402, f"the spend limit of ${self.spend_limit:.2f}/hr would be exceeded")

    def _place(self, kind: GpuKind, count: int, wanted: list[str], min_cuda: str) -> str:
        free = [place for place in (wanted or PLACES) if self.stock.get((kind.id, place), "NONE") != "NONE"]
        if not free or count > kind.most or not knows(min_cuda):
            raise Refused(400, FULL)
        return free[0]

    def visible(self) -> list[Life]:
        """The pods that a listing shows."""
        self.tick()
        with self.guard:
            return [life for life in self.lives.values()
                    if life.status != "TERMINATED" and self.clock() >= life.hidden_until]

    def find(self, pod_id: str) -> Life:
        """Raises Refused 404."""
        self.tick()
        life = self.lives.get(pod_id)
        if life is None or life.status == "TERMINATED" or self.clock() < life.hidden_until:
            raise Refused(404, "pod not found")
        return life

    def tick(self) -> None:
        """Let every life be as old as it is."""
        with self.guard:
            for life in self.lives.values():
                self._age(life)
                if life.status == "RUNNING" and life.container is not None and life.container.exited \
                        and self.clock() - (life.started or 0) >= RESTART_S:
                    self.say(life, "system", "container exited, start container")
                    life.started = self.clock()
                    life.container.restart()
            if self.balance <= 0:
                for life in self.lives.values():
                    if life.status in LIVING:
                        self.say(life, "system", "balance is zero: pod terminated")
                        self.end(life)

    def _age(self, life: Life) -> None:
        age = self.clock() - life.created
        if life.status == "PROVISIONING" and age >= self.placing_s:
            life.status = "STARTING"
            self.say(life, "system", f"pulling image {life.body['image']}")
        if life.status == "STARTING" and "pod_error" in life.faults and age >= self.placing_s + self.pulling_s / 2:
            life.status = "ERROR"
            life.ended = self.clock()
            self.say(life, "system", "error pulling image: layer does not exist")
        if life.status == "STARTING" and "stuck_starting" not in life.faults \
                and age >= self.placing_s + self.pulling_s:
            self._run(life)

    def _run(self, life: Life) -> None:
        self.say(life, "system", "image pulled, start container")
        life.status, life.running_since = "RUNNING", self.clock()
        life.started = life.running_since
        if self.folder is None:
            return
        command = life.body.get("cmd") or _split(life.body.get("args", ""))
        given = {name: self._filled(value) for name, value in life.body.get("env", {}).items()}
        life.container = FakePod(self.folder / life.id, {**given, **self._inside(life)}, command,
                                 life.kind.id, life.body["gpu"].get("count", 1),
                                 lambda text: self._heard(life, text))
        life.container.start()

    def _filled(self, value: str) -> str:
        """An environment's value with the secrets that the account keeps in place of their names."""
        return re.sub(r"\{\{ RUNPOD_SECRET_(.+?) \}\}", lambda found: self.secrets.get(found[1], found[0]), value)

    def _inside(self, life: Life) -> dict[str, str]:
        """What the provider puts into a pod's environment."""
        return {"RUNPOD_POD_ID": life.id, "RUNPOD_API_KEY": life.key, "RUNPOD_DC_ID": life.place,
                "RUNPOD_GPU_COUNT": str(life.body["gpu"].get("count", 1))}

    def _heard(self, life: Life, text: str) -> None:
        if not ("no_fingerprint" in life.faults and "SHA256:" in text):
            self.say(life, "container", text)

    def end(self, life: Life) -> None:
        """Terminated: what ran in it is killed, its disk is gone, the meter stands still."""
        with self.guard:
            if life.status == "TERMINATED":
                return
            life.status, life.ended = "TERMINATED", life.ended or self.clock()
            self.say(life, "system", "pod terminated")
        if life.container is not None:
            life.container.end()

    def end_all(self) -> None:
        for life in list(self.lives.values()):
            self.end(life)

    # Logs.

    def say(self, life: Life, source: str, text: str) -> None:
        with self.changed:
            number = life.log[-1].number + 1 if life.log else 1
            life.log.append(LogRow(number, source, text, stamp(self.clock())))
            del life.log[:-_LOG_LINES]
            self.changed.notify_all()

    def lines(self, life: Life, source: str, tail: int, after: str, stop: threading.Event) -> Iterator[LogRow | None]:
        """The last `tail` lines, or those after an id, then new ones as they come; None now and then, for ever."""
        with self.guard:
            rows = [row for row in life.log if source in ("", row.source)]
            number = int(after.rpartition("/")[2]) if after.rpartition("/")[2].isdigit() else None
            rows = [row for row in rows if row.number > number] if number is not None else rows[len(rows) - tail:]
            last = life.log[-1].number if life.log else 0
        yield from rows
        while not stop.is_set():
            self.tick()
            with self.changed:
                rows = [row for row in life.log if row.number > last and source in ("", row.source)]
                last = life.log[-1].number if life.log else last
                if not rows:
                    self.changed.wait(0.2)
            if not rows:
                yield None
            yield from rows


def knows(min_cuda: str) -> bool:
    """Whether the drivers here know this version of CUDA, compared as numbers."""
    return not min_cuda or tuple(map(int, min_cuda.split("."))) <= tuple(map(int, CUDA.split(".")))


def stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _split(args: str) -> list[str]:
    with suppress(ValueError):
        return shlex.split(args)
    return []

"""A provider of rented machines, as whoever rents one sees it: offers, pods, their logs, their bill.

Only the words and the Protocol are here, and how our pods are named. `remote.runpod.client` speaks to the real one and
`remote.fake_runpod.server` is a loopback double of it. It knows no run, no budget and no ledger.

The order that keeps every cent accounted for: write the name down, `create`, write the id down; after CreateUnknown
ask `find_by_name` until it is certain; `terminate`, then `is_gone` until it says so. Money stops only when it does.
"""

from __future__ import annotations

import calendar
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from remote.cuda import TORCH_CUDA

NAME_PREFIX = "llmconsole-"
PROVISIONING, STARTING, RUNNING = "PROVISIONING", "STARTING", "RUNNING"
EXITED, ERROR, TERMINATED = "EXITED", "ERROR", "TERMINATED"
STOCKS = ("NONE", "LOW", "MEDIUM", "HIGH")
CONTAINER, SYSTEM = "container", "system"
_NAME = re.compile(rf"{NAME_PREFIX}(?P<run>.+)-(?P<deadline>\d{{8}}t\d{{6}}z)-(?P<nonce>[0-9a-f]{{6}})")
_STAMP = "%Y%m%dt%H%M%Sz"


@dataclass(frozen=True)
class Want:
    """What somebody wants to rent. Earlier GPU types and clouds are preferred; an empty tuple means any.

    `gpus` are the provider's exact ids, such as "NVIDIA H100 80GB HBM3". `data_centers` are ids in upper case.
    `min_cuda` is the CUDA that the driver must know, such as "13.0", or "" for any driver.
    """

    gpus: tuple[str, ...] = ("NVIDIA H100 80GB HBM3",)
    count: int = 8
    clouds: tuple[str, ...] = ("SECURE",)
    data_centers: tuple[str, ...] = ()
    min_cuda: str = TORCH_CUDA


@dataclass(frozen=True)
class Offer:
    """What the catalogue says can be rented in one place. A statement of the last minute, not a reservation."""

    gpu: str
    gpu_name: str
    count: int
    memory_gb: int  # per GPU
    cloud: str  # SECURE | COMMUNITY
    data_center: str  # "" when the catalogue names none
    data_center_name: str
    stock: str  # one of STOCKS
    usd_per_hour: float  # list price of the whole pod; what is billed stands in Pod.usd_per_hour
    warnings: tuple[str, ...] = ()  # sentences, such as "no full NVLink between the GPUs"

    @property
    def available(self) -> bool:
        return self.stock != "NONE"


@dataclass(frozen=True)
class PodSpec:
    """One pod to be created: exactly one GPU type, no fallback.

    `name` comes from `pod_name` and must never be used for a second create. `command` is the start command, argv
    by argv. `public_key` is an OpenSSH line of the run's own key. `env` can be read back from the provider by anybody
    with the account's key: no secret belongs in it. `disk_gb` is wiped by a stop; `volume_gb` (0: none) is not.
    """

    name: str
    image: str
    gpu: str
    count: int
    command: tuple[str, ...]
    public_key: str
    cloud: str = "SECURE"
    data_centers: tuple[str, ...] = ()
    min_cuda: str = TORCH_CUDA
    disk_gb: int = 100
    volume_gb: int = 0
    network_volume: str = ""  # id of one that exists; excludes volume_gb
    mount: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """Where a pod's own SSH server answers."""

    host: str
    port: int
    user: str = "root"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Pod:
    """A pod as last read. Times are wall time in seconds as the provider gave them.

    `usd_per_hour` is what it costs now, disks included as far as the provider says: 0 when stopped or gone, so keep
    your own copy of the agreed rate. `status` RUNNING says that a container was started, not that anyone can log in.
    """

    id: str
    name: str
    status: str
    usd_per_hour: float
    gpu: str = ""
    count: int = 0
    cloud: str = ""
    data_center: str = ""
    image: str = ""
    created: float = 0.0
    started: float | None = None
    ssh: Address | None = None  # straight to the pod; changes whenever it restarts
    proxy: str = ""  # an `ssh ...` command for a person's own terminal, "" when there is none
    uptime_s: float | None = None
    gpu_util: tuple[float, ...] = ()  # percent, per GPU
    locked: bool = False

    @property
    def bills(self) -> bool:
        """Whether it can cost money as far as this reading says; a stopped pod still pays for its disk."""
        return self.status != TERMINATED


@dataclass(frozen=True)
class LogLine:
    """One line of a pod's log. `cursor` is opaque: give it back to go on after this line."""

    source: str  # CONTAINER | SYSTEM
    text: str  # as sent: foreign, uncleaned
    time: str  # RFC 3339
    cursor: str


@dataclass(frozen=True)
class BillingRow:
    """What the provider charged one pod in [start, end), wall time in seconds."""

    pod_id: str
    start: float
    end: float
    usd: float
    gpu_usd: float = 0.0
    cpu_usd: float = 0.0
    disk_usd: float = 0.0


@dataclass(frozen=True)
class Account:
    """Money left, as far as anybody can tell; None is "unknown", never zero. `note` says why it is unknown."""

    balance_usd: float | None = None
    spend_per_hour: float | None = None
    spend_limit: float | None = None
    note: str = ""

    def hours_left(self, more_per_hour: float = 0.0) -> float | None:
        """Hours until the balance is used up at the present rate and some more; None when that cannot be said."""
        if self.balance_usd is None or self.spend_per_hour is None or self.spend_per_hour + more_per_hour <= 0:
            return None
        return max(self.balance_usd, 0.0) / (self.spend_per_hour + more_per_hour)


class Provider(Protocol):
    """Every method may raise CredentialRefused, AccessRefused, EdgeRefused, RateLimited and ProviderDown.

    Reads are tried again by themselves for about half a minute before they raise. Safe for many threads.
    """

    name: str

    def offers(self, want: Want) -> list[Offer]:
        """What is listed now, best first: in stock before sold out, then as `want` prefers, then cheaper, then more
        stock. Offers without stock are included, so that a person sees what to wait for."""

    def request_body(self, spec: PodSpec) -> dict[str, Any]:
        """Exactly what `create` would send. Nothing is sent."""

    def create(self, spec: PodSpec) -> Pod:
        """Ask for a pod, once. Raises NoCapacity, BalanceExhausted, BadRequest when nothing was created, and
        CreateUnknown when that cannot be said."""

    def find_by_name(self, name: str) -> list[Pod]:
        """Every pod with exactly this name: names are not unique there. Raises rather than leave anything out."""

    def pods(self, prefix: str = NAME_PREFIX) -> list[Pod]:
        """Every pod of the account whose name starts with `prefix`. A failed listing raises: it is never []."""

    def get(self, pod_id: str) -> Pod | None:
        """The pod as it is now; None when the provider says that it knows none with this id. In the first minute after
        `create` that may be a lag."""

    def terminate(self, pod_id: str) -> None:
        """Ask for the end; harmless to repeat, also for a pod that is gone. It is not over before `is_gone`."""

    def is_gone(self, pod_id: str) -> bool:
        """Whether the provider confirms that the pod is TERMINATED, or neither knows it by id nor lists it."""

    def log(self, pod_id: str, *, source: str = "", tail: int = 100) -> list[LogLine]:
        """The last lines of the pod's log; both sources when none is named. Raises NoSuchPod."""

    def follow_log(self, pod_id: str, stop: threading.Event, *, source: str = "", tail: int = 100,
                   cursor: str = "") -> Iterator[LogLine]:
        """Lines as they come, each once, reconnecting by itself until `stop` is set. Raises NoSuchPod."""

    def billing(self, pod_id: str = "", hours: int = 48) -> list[BillingRow]:
        """What was charged in the last `hours`, by hour; all pods when none is named. Lags by some minutes."""

    def account(self) -> Account:
        """Balance and limits as far as the provider tells; raises only CredentialRefused."""

    def clock(self) -> float:
        """Wall time in seconds by the provider's clock, as far as it told it; deadlines and ages of pods are in it."""

    def close(self) -> None:
        """Let the connections go."""


@dataclass(frozen=True)
class PodName:
    """What a pod's name says: whose it is and when it should end, wall time in seconds."""

    run: str
    deadline: float


def pod_name(run: str, deadline: float) -> str:
    """A name that no other create ever used: our prefix, the run, its deadline (UTC) and six random digits."""
    return f"{NAME_PREFIX}{run}-{time.strftime(_STAMP, time.gmtime(deadline))}-{secrets.token_hex(3)}"


def parse_pod_name(name: str) -> PodName | None:
    """The run and deadline in a name made by `pod_name`; None when it is not one of ours."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    try:
        moment = time.strptime(found["deadline"] + "UTC", _STAMP + "%Z")
    except ValueError:
        return None
    return PodName(found["run"], float(calendar.timegm(moment)))


def candidates(offers: Sequence[Offer]) -> list[Offer]:
    """The offers worth a create, in the order to try them."""
    return [offer for offer in offers if offer.available]

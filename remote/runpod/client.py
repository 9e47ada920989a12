"""RunPod's REST v2 as a Provider: about eight calls over plain HTTP, their answers as our own words.

Fields that a reply lacks are unknown, never zero by guess; a listing that may be incomplete is an error. The old APIs
are used for nothing but one optional look at the balance, which v2 does not tell.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import httpx

from remote.errors import BadRequest, CreateUnknown, CredentialRefused, NoSuchPod, ProviderDown, ProviderError
from remote.provider import (
    NAME_PREFIX,
    STOCKS,
    TERMINATED,
    Account,
    Address,
    BillingRow,
    LogLine,
    Offer,
    Pod,
    PodSpec,
    Want,
)
from remote.runpod import log_stream as runpod_log
from remote.runpod.http import BASE, Api, refusal
from remote.secret_text import Secret

GRAPHQL = "https://api.runpod.io/graphql"
_BALANCE = "query { myself { clientBalance currentSpendPerHr spendLimit } }"
_MOST_ENV = 50
_MOST_PAGES = 100


class RunPod:
    """The Provider Protocol for one RunPod account. `base` and `graphql` are other addresses for a double of it."""

    def __init__(self, key: Secret, *, base: str = BASE, graphql: str | None = GRAPHQL, agent: str = "llmconsole",
                 patience: float = 30.0) -> None:
        self.name = "runpod"
        self._key, self._graphql = key, graphql
        self._api = Api(key, base=base, agent=agent, patience=patience)
        self._takes_cmd = True

    # Offers.

    def offers(self, want: Want) -> list[Offer]:
        found: list[Offer] = []
        for cloud in want.clouds:
            query = {"include": "AVAILABILITY", "product": "POD", "count": want.count, "cloud": cloud,
                     **({"minCudaVersion": want.min_cuda} if want.min_cuda else {})}
            for gpu in self._list("/catalog/gpus", "gpus", **query):
                found += _offers(gpu, cloud, want)
        return sorted(found, key=lambda offer: _rank(offer, want))

    # Pods.

    def request_body(self, spec: PodSpec) -> dict[str, Any]:
        return create_body(spec, exec_form=self._takes_cmd)

    def create(self, spec: PodSpec) -> Pod:
        try:
            found = self._api.create("/pods", self.request_body(spec))
        except BadRequest as error:
            if not self._takes_cmd or error.status != 422 or not re.search(r"\bcmd\b", error.detail):
                raise
            self._takes_cmd = False  # an API of before `cmd` came: it refused the field, so nothing was created
            found = self._api.create("/pods", self.request_body(spec))
        try:
            return pod_from(found)
        except ProviderDown as error:
            raise CreateUnknown("RunPod accepted the create but does not say which pod it made; looking it up by its "
                                "name", status=201, detail=error.detail) from None

    def find_by_name(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods(name) if pod.name == name]

    def pods(self, prefix: str = NAME_PREFIX) -> list[Pod]:
        found = [pod_from(row) for row in self._list("/pods", "pods")]
        return [pod for pod in found if pod.name.startswith(prefix)]

    def get(self, pod_id: str) -> Pod | None:
        try:
            return pod_from(self._api.get(f"/pods/{_id(pod_id)}"))
        except NoSuchPod:
            return None

    def terminate(self, pod_id: str) -> None:
        try:
            self._api.delete(f"/pods/{_id(pod_id)}")
        except NoSuchPod:
            return

    def is_gone(self, pod_id: str) -> bool:
        pod = self.get(pod_id)
        if pod is not None:
            return pod.status == TERMINATED
        return all(other.id != pod_id or other.status == TERMINATED for other in self.pods(""))

    # Logs and money.

    def log(self, pod_id: str, *, source: str = "", tail: int = 100) -> list[LogLine]:
        return runpod_log.snapshot(self._api, _id(pod_id), source, tail)

    def follow_log(self, pod_id: str, stop: threading.Event, *, source: str = "", tail: int = 100,
                   cursor: str = "") -> Iterator[LogLine]:
        return runpod_log.follow(self._api, _id(pod_id), stop, source, tail, cursor)

    def billing(self, pod_id: str = "", hours: int = 48) -> list[BillingRow]:
        query = {"bucketSize": "hour", "lastN": hours, **({"podId": pod_id} if pod_id else {})}
        return [_billing_row(row) for row in self._list("/billing/pods", "records", **query)]

    def account(self) -> Account:
        if self._graphql is None:
            return Account(note="this RunPod does not tell its balance")
        try:
            reply = httpx.post(self._graphql, json={"query": _BALANCE}, timeout=10.0, headers={
                "Authorization": f"Bearer {self._key.reveal()}", "User-Agent": "llmconsole"})
            if reply.status_code >= 400:
                raise refusal(reply)
            found = reply.json()["data"]["myself"]
            return Account(_amount(found.get("clientBalance")), _amount(found.get("currentSpendPerHr")),
                           _amount(found.get("spendLimit")))
        except CredentialRefused:
            raise
        except (httpx.HTTPError, ProviderError, ValueError, KeyError, TypeError, AttributeError):
            return Account(note="RunPod did not tell the balance: its old API, the only one that does, gave no answer")

    def clock(self) -> float:
        return self._api.clock()

    def close(self) -> None:
        self._api.close()

    def _list(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        """Every row of a listing. Raises ProviderDown rather than return a part of it."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = self._api.get(path, **query, **({"cursor": cursor} if cursor else {}))
            if not isinstance(page.get(name), list):
                raise ProviderDown(f"RunPod's listing has no {name}: it is not taken for an empty one")
            rows += page[name]
            more = page.get("pagination") or {}
            if not more.get("hasNextPage"):
                return rows
            if not more.get("nextCursor") or more["nextCursor"] == cursor:
                break
            cursor = str(more["nextCursor"])
        raise ProviderDown(f"RunPod's listing of {name} does not come to an end: it is not taken for complete")


# Bodies and replies: pure.


def create_body(spec: PodSpec, *, exec_form: bool = True) -> dict[str, Any]:
    """The body of POST /pods. `exec_form=False` says the start command as one quoted text, for an older API."""
    env = {**spec.env, "PUBLIC_KEY": spec.public_key}
    if len(env) > _MOST_ENV:
        raise ValueError(f"a pod takes {_MOST_ENV} environment variables, not {len(env)}")
    body: dict[str, Any] = {
        "name": spec.name, "image": spec.image, "cloud": spec.cloud,
        "gpu": {"id": spec.gpu, "count": spec.count, **({"minCudaVersion": spec.min_cuda} if spec.min_cuda else {})},
        "disk": spec.disk_gb, "ports": ["22/tcp"], "env": env}
    if spec.data_centers:
        body["dataCenterIds"] = [name.upper() for name in spec.data_centers]
    if exec_form:
        body["cmd"] = list(spec.command)
    else:
        body["args"] = shlex.join(spec.command)
    if spec.network_volume:
        body["mounts"] = {"network": [{"volumeId": spec.network_volume, "path": spec.mount}]}
    elif spec.volume_gb:
        body["mounts"] = {"persistent": {"size": spec.volume_gb, "path": spec.mount}}
    return body


def pod_from(row: Mapping[str, Any]) -> Pod:
    """A pod in a reply. Raises ProviderDown when it says not even which pod it is."""
    try:
        gpu, runtime, ssh = row.get("gpu") or {}, row.get("runtime") or {}, row.get("ssh") or {}
        return Pod(id=str(row["id"]), name=str(row["name"]), status=str(row["status"]),
                   usd_per_hour=float(row.get("cost") or 0.0), gpu=str(gpu.get("id", "")),
                   count=int(gpu.get("count") or 0), cloud=str(row.get("cloud") or ""),
                   data_center=str(row.get("dataCenterId") or ""), image=str(row.get("image") or ""),
                   created=moment(row.get("createdAt")) or 0.0, started=moment(row.get("startedAt")),
                   ssh=_address(ssh.get("direct")), proxy=str((ssh.get("proxy") or {}).get("command") or ""),
                   uptime_s=_amount(runtime.get("uptime")), locked=bool(row.get("locked")),
                   gpu_util=tuple(float(each.get("util") or 0) for each in runtime.get("gpus") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderDown("RunPod's description of a pod cannot be read", detail=repr(error)) from None


def moment(text: Any) -> float | None:
    """Wall time in seconds of an RFC 3339 text, with any number of decimals; None for anything else."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?(Z|z|[+-]\d\d:\d\d)?", str(text or ""))
    if not found:
        return None
    zone = "+00:00" if (found[4] or "Z") in "Zz" else found[4]
    whole = datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}")
    return whole.astimezone(timezone.utc).timestamp() + float(found[3] or 0)


def _address(found: Any) -> Address | None:
    if not found or not found.get("host") or not found.get("port"):
        return None
    return Address(str(found["host"]), int(found["port"]), str(found.get("username") or "root"))


def _offers(gpu: Mapping[str, Any], cloud: str, want: Want) -> list[Offer]:
    """One per data centre that the catalogue names; one without a place when it names none."""
    if (want.gpus and gpu["id"] not in want.gpus) or not gpu.get(cloud.lower(), True):
        return []
    most = int((gpu.get("maxCount") or {}).get(cloud.lower()) or 0)
    price = float((gpu.get("price") or {}).get(cloud.lower()) or 0.0)
    wanted = {name.upper() for name in want.data_centers}
    places = [place for place in gpu.get("dataCenters") or () if not wanted or str(place["id"]).upper() in wanted]
    if not places:
        nowhere = "NONE" if wanted or want.count > most else str(gpu.get("availability") or "NONE")
        places = [{"id": name, "name": name, "availability": nowhere} for name in sorted(wanted) or [""]]
    return [Offer(gpu=str(gpu["id"]), gpu_name=str(gpu.get("name") or gpu["id"]), count=want.count,
                  memory_gb=int(gpu.get("memory") or 0), cloud=cloud, data_center=str(place["id"]),
                  data_center_name=str(place.get("name") or place["id"]), usd_per_hour=round(price * want.count, 4),
                  stock=str(place.get("availability") or "NONE"),
                  warnings=tuple(_warnings(gpu, cloud, want.count, most, str(place.get("availability")))))
            for place in places]


def _warnings(gpu: Mapping[str, Any], cloud: str, count: int, most: int, stock: str) -> Iterator[str]:
    if count > most:
        yield f"no machine of this kind has more than {most}"
    if count > 1 and re.search(r"PCIe|NVL", str(gpu["id"])):
        yield "these GPUs are not all linked by NVLink: training on several is slower"
    if cloud == "COMMUNITY":
        yield "the machine belongs to a third party, who could read what is on it"
    if stock == "LOW":
        yield "few are left: a create may be refused"


def _rank(offer: Offer, want: Want) -> tuple[Any, ...]:
    order = want.gpus.index(offer.gpu) if offer.gpu in want.gpus else len(want.gpus)
    return (not offer.available, order, want.clouds.index(offer.cloud), offer.usd_per_hour,
            -STOCKS.index(offer.stock) if offer.stock in STOCKS else 0, offer.data_center)


def _billing_row(row: Mapping[str, Any]) -> BillingRow:
    try:
        return BillingRow(str(row["podId"]), moment(row["startTime"]) or 0.0, moment(row["endTime"]) or 0.0,
                          float(row["totalAmount"]), float(row.get("gpuAmount") or 0), float(row.get("cpuAmount") or 0),
                          float(row.get("diskAmount") or 0))
    except (KeyError, TypeError, ValueError) as error:
        raise ProviderDown("RunPod's bill cannot be read", detail=repr(error)) from None


def _amount(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _id(pod_id: str) -> str:
    """A pod id that can stand in a path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", pod_id):
        raise ValueError(f"{pod_id!r} is no id of a pod")
    return pod_id

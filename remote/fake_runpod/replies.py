"""What the double of RunPod answers, in the shapes of the published v2 specification: pods, catalogue, bill, and what
is wrong with a request. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from remote.fake_runpod.cloud import CUDA, KINDS, LIVING, PLACES, FakeCloud, Life, Refused, knows, stamp

_BODY = {"name", "image", "cloud", "gpu", "dataCenterIds", "globalNetworking", "startJupyter", "startSsh", "args",
         "disk", "env", "ports", "registry", "mounts"}
_LATER = {"cmd", "entrypoint"}  # fields that came after the published file
_GPU = {"id", "count", "allowedCudaVersions", "minCudaVersion"}
_GPU_LATER = {"minRamPerGpu", "minVcpuCountPerGpu"}


def pod_json(cloud: FakeCloud, life: Life) -> dict[str, Any]:
    """A pod as GET shows it."""
    body, running = life.body, life.status == "RUNNING"
    port = life.container.port if running and life.container and "no_port" not in life.faults else None
    direct = {"host": "127.0.0.1", "port": port, "username": "root", "command": f"ssh root@127.0.0.1 -p {port}"}
    uptime = int(cloud.clock() - (life.running_since or 0))
    count = body["gpu"].get("count", 1)
    ports = [{"private": 22, "public": port, "type": "tcp", "ip": "127.0.0.1"}] if port else []
    return {
        "id": life.id, "name": body["name"], "status": life.status,
        "actions": ["stop", "restart", "terminate"] if running else ["terminate"],
        "image": body["image"], "args": body.get("args", ""), "disk": body.get("disk", 50),
        "mounts": body.get("mounts", {}), "ports": body.get("ports", []), "env": body.get("env", {}),
        "registry": body.get("registry"), "gpu": {"id": life.kind.id, "count": count},
        "cloud": body.get("cloud", "SECURE"), "dataCenterId": life.place, "cudaVersion": CUDA,
        "ssh": {"proxy": None, "direct": direct if port else None}, "template": None,
        "cost": life.usd_per_hour if life.status in LIVING else 0.0, "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": {"uptime": uptime, "gpus": [{"util": 0, "memoryUtil": 0}] * count, "cpu": {"util": 0},
                    "memory": {"util": 0}, "ports": ports} if running else None,
        "createdAt": stamp(life.created), "startedAt": stamp(life.running_since) if life.running_since else None}


def catalogue(cloud: FakeCloud, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """GET /catalog/gpus."""
    count = int(query.get("count", "1"))
    rows = []
    for kind in KINDS:
        row: dict[str, Any] = {
            "id": kind.id, "name": kind.name, "pool": None, "manufacturer": "NVIDIA", "memory": kind.memory,
            "secure": True, "community": True, "price": {"secure": kind.secure, "community": kind.community},
            "maxCount": {"secure": kind.most, "community": kind.most}}
        if query.get("include") == "AVAILABILITY":
            fits = count <= kind.most and knows(query.get("minCudaVersion", ""))
            places = [{"id": place, "name": name, "availability": cloud.stock[kind.id, place]}
                      for place, name in PLACES.items() if (kind.id, place) in cloud.stock and fits]
            levels = ["NONE", "LOW", "MEDIUM", "HIGH"]
            row["availability"] = max((place["availability"] for place in places), key=levels.index, default="NONE")
            row["cudaVersions"] = [{"version": CUDA, "available": row["availability"] != "NONE"}]
            if places:
                row["dataCenters"] = places
        rows.append(row)
    return rows


def bill(cloud: FakeCloud, query: Mapping[str, str]) -> dict[str, Any]:
    """GET /billing/pods in buckets of an hour or a day."""
    size = {"hour": 3600, "day": 86400}.get(query.get("bucketSize", "day"))
    if size is None:
        raise Refused(422, "Request validation failed.", ["bucketSize: only hour and day are kept here"])
    end = (int(cloud.clock()) // size + 1) * size
    start = end - size * int(query.get("lastN", "30"))
    records: list[dict[str, Any]] = []
    for life in list(cloud.lives.values()):
        if query.get("podId") not in (None, life.id):
            continue
        first = max(int(life.created) // size * size, start)
        for begun in range(first, end, size):
            usd = round(cloud.cost(life, begun, begun + size), 6)
            if usd > 0:
                records.append({"startTime": stamp(begun), "endTime": stamp(begun + size), "podId": life.id,
                                "totalAmount": usd, "gpuAmount": usd, "cpuAmount": 0.0, "diskAmount": 0.0})
    total = round(sum(record["totalAmount"] for record in records), 6)
    return {"records": records, "metadata": {
        "query": {"startTime": stamp(start), "endTime": stamp(end), "bucketSize": query.get("bucketSize", "day"),
                  "podId": query.get("podId")},
        "recordCount": len(records), "uniquePodCount": len({record["podId"] for record in records}),
        "totals": {"totalAmount": total, "gpuAmount": total, "cpuAmount": 0.0, "diskAmount": 0.0}}}


def violations(body: dict[str, Any], later_fields: bool) -> list[str]:
    """What is wrong with the body of a create, as far as our own client could get it wrong. Pure."""
    gpu = body.get("gpu")
    found = [f"$: additional properties '{name}' not allowed"
             for name in body if name not in _BODY | (_LATER if later_fields else set())]
    found += [f"$: missing property '{name}'" for name in ("name", "image")
              if not isinstance(body.get(name), str) or not body[name]]
    if not isinstance(gpu, dict) or not isinstance(gpu.get("id"), str):
        return [*found, "$.gpu: missing property 'id'"]
    found += [f"$.gpu: additional properties '{name}' not allowed"
              for name in gpu if name not in _GPU | (_GPU_LATER if later_fields else set())]
    if not isinstance(gpu.get("count", 1), int) or gpu.get("count", 1) < 1:
        found.append("$.gpu.count: minimum: got less than 1")
    if not isinstance(body.get("disk", 1), int) or body.get("disk", 1) < 1:
        found.append("$.disk: minimum: got less than 1")
    if body.get("cloud", "SECURE") not in ("SECURE", "COMMUNITY"):
        found.append("$.cloud: value must be one of 'SECURE', 'COMMUNITY'")
    if not all(isinstance(value, str) for value in body.get("env", {}).values()):
        found.append("$.env: values must be strings")
    if not re.fullmatch(r"\d+\.\d+", str(gpu.get("minCudaVersion", "1.0"))):
        found.append("$.gpu.minCudaVersion: does not match pattern")
    return found

"""RunPod's client against its double, the double against the published file, and pods that are real shells."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remote import job
from remote.errors import (
    AccessRefused,
    BadRequest,
    BalanceExhausted,
    CreateUnknown,
    CredentialRefused,
    EdgeRefused,
    HostKeyChanged,
    HostUnreachable,
    NoCapacity,
    NoSuchPod,
    ProviderDown,
    RateLimited,
)
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.process import demo
from remote.fake_runpod.replies import violations
from remote.fake_runpod.server import FakeRunPod
from remote.provider import CONTAINER, SYSTEM, PodSpec, Want, parse_pod_name, pod_name
from remote.runpod import deadline
from remote.runpod.client import RunPod, create_body
from remote.runpod.http import error_for, wait_of
from remote.runpod.log_stream import SseParser
from remote.runpod.pod_pin import PodPin
from remote.secret_text import Secret, redactor
from remote.ssh.host import SshHost
from remote.ssh.keys import make_key
from remote.ssh.known_hosts import KnownHosts
from remote.ssh.route import Route

SPEC = Path(__file__).parents[3] / "shared" / "reference" / "runpod-openapi-v2.json"
START = ("/bin/sh", "-c", 'exec "${POD_START_PROGRAM:-/start.sh}"')
LATER = {"cmd", "entrypoint"}  # fields that came after the saved file


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[FakeRunPod]:
    """A cloud whose pods are only entries, on a clock of our own."""
    with FakeRunPod(FakeCloud(clock=clock)) as found:
        yield found


@pytest.fixture
def runpod(server: FakeRunPod) -> Iterator[RunPod]:
    found = RunPod(Secret(server.key), base=server.base, graphql=server.graphql, patience=2)
    yield found
    found.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[FakeRunPod, RunPod]]:
    """A cloud whose pods are processes of this machine."""
    with FakeRunPod(FakeCloud(tmp_path / "pods", placing_s=0.1, pulling_s=0.1)) as found:
        client = RunPod(Secret(found.key), base=found.base, graphql=found.graphql)
        yield found, client
        client.close()


def spec(name: str = "llmconsole-a-20300101t000000z-000000", **words: Any) -> PodSpec:
    return PodSpec(**{"name": name, "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
                      "gpu": "NVIDIA H100 80GB HBM3", "count": 8, "command": START,
                      "public_key": "ssh-ed25519 AAAA x", **words})


def until(true: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# The published file.


@pytest.fixture(scope="module")
def schema() -> Callable[[str], Any]:
    if not SPEC.exists():
        pytest.skip("needs the saved OpenAPI file")
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    document = json.loads(SPEC.read_text())
    resource = referencing.Resource.from_contents(document, referencing.jsonschema.DRAFT202012)
    registry = referencing.Registry().with_resource("urn:v2", resource)

    def validator(name: str) -> Any:
        return jsonschema.Draft202012Validator({"$ref": f"urn:v2#/components/schemas/{name}"}, registry=registry)

    return validator


BODIES: list[dict[str, Any]] = [
    {}, {"name": "x", "image": "i", "gpu": {"id": "g"}}, {"name": "x", "gpu": {"id": "g"}},
    {"name": "x", "image": "i", "gpu": {"id": "g"}, "interruptible": True},
    {"name": "x", "image": "i", "gpu": {"id": "g", "count": 0}},
    {"name": "x", "image": "i", "gpu": {"id": "g", "minCudaVersion": "12"}},
    {"name": "x", "image": "i", "gpu": {"id": "g", "minRamPerGpu": 8}},
    {"name": "x", "image": "i", "gpu": {"id": "g"}, "cloud": "ALL"},
    {"name": "x", "image": "i", "gpu": {"id": "g"}, "env": {"A": 1}},
    {"name": "x", "image": "i", "gpu": {"id": "g"}, "disk": 0}, {"name": "", "image": "i", "gpu": {"id": "g"}},
]


def test_our_bodies_fit_the_file_and_the_double_refuses_what_it_refuses(schema: Callable[[str], Any]) -> None:
    request = schema("CreatePodRequest")
    for words in ({}, {"volume_gb": 200}, {"network_volume": "vol1"}, {"data_centers": ("us-ks-2",)}, {"min_cuda": ""}):
        body = create_body(spec(**words), exec_form=False)
        request.validate(body)
        newest = create_body(spec(**words))
        assert set(newest) - set(body) == {"cmd"} <= LATER and violations(newest, True) == []
        assert violations(newest, False) == ["$: additional properties 'cmd' not allowed"]
    for body in BODIES:
        assert request.is_valid(body) == (violations(body, False) == []) or "gpu" not in body, body


def test_every_reply_of_the_double_fits_the_file(schema: Callable[[str], Any], server: FakeRunPod, clock: Clock,
                                                 runpod: RunPod) -> None:
    client = httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {server.key}"})
    created = client.post("/pods", json=create_body(spec(volume_gb=20)))
    assert created.status_code == 201
    schema("Pod").validate(created.json())
    for seconds in (2, 3, 4000):
        clock.now += seconds
        schema("ListPodsResponse").validate(client.get("/pods").json())
        schema("Pod").validate(client.get(f"/pods/{created.json()['id']}").json())
    schema("ListGpuTypesResponse").validate(client.get("/catalog/gpus").json())
    full = client.get("/catalog/gpus", params={"include": "AVAILABILITY", "product": "POD", "count": 8})
    schema("ListGpuTypesResponse").validate(full.json())
    schema("ListPodBillingResponse").validate(
        client.get("/billing/pods", params={"bucketSize": "hour", "lastN": 3}).json())
    for reply in (client.get("/pods/nosuch"), client.post("/pods", json={}), client.get("/nonsense"),
                  httpx.get(f"{server.base}/pods")):
        schema("ErrorResponse").validate(reply.json())
        assert reply.headers["content-type"] == "application/problem+json"
    assert '"minute";r=' in created.headers["ratelimit"]
    client.close()


# Words and refusals.


def test_names_carry_run_and_deadline() -> None:
    name = pod_name("261121-0535-tiny-ab12", 1_800_000_000.4)
    found = parse_pod_name(name)
    assert found is not None and (found.run, found.deadline) == ("261121-0535-tiny-ab12", 1_800_000_000)
    assert pod_name("a", 0) != pod_name("a", 0)
    for other in ("my-pod", "llmconsole-", "llmconsole-x-20269999t000000z-000000", name + "x"):
        assert parse_pod_name(other) is None


@pytest.mark.parametrize(("status", "detail", "kind", "words"), [
    (400, "There are no longer any instances available with the requested specifications. Please refresh and try "
          "again.", NoCapacity, "next offer"),
    (400, "There isn't enough disk space on the host", NoCapacity, "smaller disk"),
    (400, "mounts.network and mounts.persistent are mutually exclusive", BadRequest, "mutually exclusive"),
    (413, "too large", BadRequest, "too large"), (422, "image not found", BadRequest, "image not found"),
    (402, "", BalanceExhausted, "billing"), (401, "missing bearer token", CredentialRefused, "API key"),
    (403, "access denied", AccessRefused, "scope"), (404, "pod not found", NoSuchPod, "no such pod"),
    (500, "Something went wrong", ProviderDown, "trouble of its own"), (503, "", ProviderDown, "503")])
def test_each_refusal_is_a_sentence(status: int, detail: str, kind: type, words: str) -> None:
    error = error_for(status, detail)
    assert type(error) is kind and words in str(error) and error.status == status and error.detail == detail


def test_the_longest_wait_counts() -> None:
    assert wait_of({"retry-after": "3", "ratelimit": '"minute";r=0;t=41, "hour";r=5;t=900'}) == 41
    assert wait_of({"retry-after": "Tue"}) == 5


def test_offers_come_in_the_order_to_try_them(runpod: RunPod) -> None:
    offers = runpod.offers(Want(gpus=("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"), clouds=("SECURE", "COMMUNITY")))
    assert [(offer.gpu_name, offer.cloud, offer.data_center, offer.stock) for offer in offers][:3] == [
        ("H100 SXM", "SECURE", "US-KS-2", "MEDIUM"), ("H100 SXM", "SECURE", "EU-RO-1", "LOW"),
        ("H100 SXM", "COMMUNITY", "US-KS-2", "MEDIUM")]
    assert offers[0].usd_per_hour == 31.92 and offers[0].warnings == () and "few are left" in offers[1].warnings[0]
    assert not offers[-1].available and any("NVLink" in text for text in offers[4].warnings)
    assert {offer.data_center for offer in runpod.offers(Want(data_centers=("eu-ro-1",)))} == {"EU-RO-1"}
    assert runpod.offers(Want(count=16))[0].stock == "NONE"


def test_a_life_and_its_bill_to_the_cent(runpod: RunPod, clock: Clock) -> None:
    pod = runpod.create(spec())
    assert (pod.status, pod.usd_per_hour, pod.created) == ("PROVISIONING", 31.92, clock.now)
    assert runpod.find_by_name(pod.name) == [pod] and runpod.pods("other-") == []
    clock.now += 5400
    assert runpod.get(pod.id).status == "RUNNING"  # type: ignore[union-attr]
    account = runpod.account()
    assert account.balance_usd == pytest.approx(500 - 31.92 * 1.5) and account.spend_per_hour == 31.92
    assert account.hours_left() == pytest.approx((500 - 47.88) / 31.92)
    runpod.terminate(pod.id)
    assert runpod.is_gone(pod.id) and runpod.get(pod.id) is None
    runpod.terminate(pod.id)
    clock.now += 86_400
    assert sum(row.usd for row in runpod.billing(pod.id)) == pytest.approx(47.88, abs=1e-4)
    assert runpod.billing("otherpod") == []


# Faults.


def test_a_create_whose_reply_is_lost_is_looked_up_never_repeated(server: FakeRunPod, runpod: RunPod) -> None:
    for count, fault in enumerate(("reply_lost", "error_after"), 1):
        server.cloud.plan(fault)
        name = pod_name("run", 1.9e9)
        with pytest.raises(CreateUnknown, match="looking it up by its name"):
            runpod.create(spec(name))
        assert [pod.name for pod in runpod.find_by_name(name)] == [name]
        assert server.cloud.creates == count
    assert sum(request == ("POST", "/v2/pods") for request in server.requests) == 2


def test_refusals_of_a_create(server: FakeRunPod, runpod: RunPod) -> None:
    for fault, kind in (("no_capacity", NoCapacity), ("no_balance", BalanceExhausted), ("edge", EdgeRefused)):
        server.cloud.plan(fault)
        with pytest.raises(kind):
            runpod.create(spec())
    server.cloud.plan("error_before")
    with pytest.raises(CreateUnknown):
        runpod.create(spec())
    server.cloud.plan("rate_limited")
    assert runpod.create(spec()).status == "PROVISIONING"  # 429 says that nobody looked at it: sent again
    assert server.cloud.creates == 1
    with pytest.raises(BadRequest, match="unknown gpu"):
        runpod.create(spec(gpu="GTX"))
    runpod.create(spec())
    with pytest.raises(BalanceExhausted, match="spend limit"):
        runpod.create(spec())


def test_an_older_api_gets_the_start_command_as_one_text(clock: Clock) -> None:
    command = ("/bin/sh", "-c", "echo \"it's $HOME\"\nexec /start.sh")
    with FakeRunPod(FakeCloud(clock=clock), later_fields=False) as server:
        runpod = RunPod(Secret(server.key), base=server.base)
        pod = runpod.create(spec(command=command))
        import shlex

        assert tuple(shlex.split(server.cloud.lives[pod.id].body["args"])) == command
        assert "args" in runpod.request_body(spec())
        runpod.close()


def test_reads_are_patient_and_a_failed_listing_is_never_empty(server: FakeRunPod, runpod: RunPod) -> None:
    server.cloud.plan("error_before", 2)
    assert runpod.pods() == []
    server.cloud.plan("rate_limited")
    assert runpod.pods() == []
    server.cloud.plan("error_before", 50)
    with pytest.raises(ProviderDown):
        runpod.pods()
    server.cloud._faults.clear()
    with pytest.raises(CredentialRefused):
        RunPod(Secret("rpa_wrong_wrong_wrong"), base=server.base).pods()
    with pytest.raises(ProviderDown, match="does not answer"):
        RunPod(Secret("rpa_wrong_wrong_wrong"), base="http://127.0.0.1:1/v2", patience=0).pods()


def test_a_delete_that_lies_is_found_out(server: FakeRunPod, runpod: RunPod) -> None:
    pod = runpod.create(spec())
    server.cloud.plan("terminate_ignored")
    runpod.terminate(pod.id)
    assert not runpod.is_gone(pod.id)
    server.cloud.plan("terminate_fails", 2)
    runpod.terminate(pod.id)  # asked again after each 500
    assert runpod.is_gone(pod.id)


def test_a_pod_that_is_not_listed_yet_and_a_balance_of_zero(server: FakeRunPod, runpod: RunPod, clock: Clock) -> None:
    server.cloud.plan("hidden", seconds=30)
    pod = runpod.create(spec())
    assert runpod.get(pod.id) is None and runpod.pods() == []
    clock.now += 31
    assert runpod.get(pod.id) is not None
    clock.now += 500 / 31.92 * 3600
    assert runpod.is_gone(pod.id)
    assert runpod.account().balance_usd == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("fault", ["", "log_drop", "log_duplicate", "log_crlf", "log_huge"])
def test_a_log_is_followed_with_every_line_once(server: FakeRunPod, runpod: RunPod, fault: str) -> None:
    pod = runpod.create(spec())
    life, stop, seen = server.cloud.lives[pod.id], threading.Event(), list[str]()
    if fault:
        server.cloud.plan(fault, 3)
    for line in runpod.follow_log(pod.id, stop, source=CONTAINER):
        if not line.cursor:
            server.cloud.say(life, "container", "line 0")  # the huge line was skipped or came without an id
            continue
        seen.append(line.text)
        if len(seen) == 12:
            stop.set()
        elif len(seen) > 1:
            server.cloud.say(life, "container", f"line {len(seen)}")
    assert len(seen) == len(set(seen)) == 12


@pytest.fixture(autouse=True)
def chatter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Something to read in the log that is followed."""
    if "test_a_log_is_followed" not in request.node.name:
        yield
        return
    cloud = request.getfixturevalue("server").cloud
    done = threading.Event()

    def talk() -> None:
        for number in range(10_000):
            for life in list(cloud.lives.values()):
                cloud.say(life, "container", f"chatter {number}")
            if done.wait(0.02):
                return

    threading.Thread(target=talk, daemon=True).start()
    yield
    done.set()


def test_frames_in_any_pieces() -> None:
    huge = b"data: " + b"y" * 5_000_000 + b"\n\n"
    text = b": hello\r\nid: a\r\ndata: 1\r\ndata: 2\r\n\r\nid:b\ndata:x\n\n" + huge + b"data: z\n\n"
    for size in (1, 7, 100_000):
        parser, found = SseParser(), []
        pieces = [text[at: at + size] for at in range(0, len(text), size)] if size > 1 else [text[:200], text[200:]]
        for piece in pieces:
            found += list(parser.feed(piece))
        assert [(cursor, data[:5]) for cursor, data in found] == [("a", "1\n2"), ("b", "x"), ("b", "z")]


# Pods that are real.


def pod_host(runpod: RunPod, pod_id: str, key: Path, known_hosts: Path) -> SshHost:
    """The way to a pod once it has an address, which is read anew before each connection."""
    until(lambda: runpod.get(pod_id).ssh)  # type: ignore[union-attr]

    def route() -> Route:
        address = runpod.get(pod_id).ssh  # type: ignore[union-attr]
        if address is None:
            raise HostUnreachable("no address now")
        return Route(address.host, address.port, address.user, (key,), only_these_keys=True)

    return SshHost(pod_id, route, PodPin(runpod, pod_id, KnownHosts(known_hosts)))



def test_an_evening_on_a_real_pod(real: tuple[FakeRunPod, RunPod], tmp_path: Path) -> None:
    server, runpod = real
    key = tmp_path / "keys" / "run"
    command = deadline.start_command(time.time() + 3600, api=server.base)
    pod = runpod.create(spec(public_key=make_key(key), command=command))
    host = pod_host(runpod, pod.id, key, tmp_path / "known_hosts")
    assert host.run(["nvidia-smi", "-L"]).out.count(b"GPU ") == 8
    assert not host.pin.taken_on_trust  # type: ignore[attr-defined]
    log = [line.text for line in runpod.log(pod.id)]
    assert any(line.startswith(deadline.ARMED) for line in log) and any("SHA256:" in line for line in log)
    assert runpod.log(pod.id, source=SYSTEM, tail=1)[0].text == "image pulled, start container"
    home = host.run(["sh", "-c", "cd && pwd"]).out.decode().strip()
    assert home.startswith(str(tmp_path / "pods" / pod.id))
    job.launch(host, f"{home}/job", 1, ["sleep", "300"])
    assert host.run(["sh", "-c", "kill -9 $$"]).rc == -9
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    host.put(tmp_path / "file", f"{home}/file")
    host.get(f"{home}/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * 1_000_000

    server.cloud.lives[pod.id].container.move_port()  # type: ignore[union-attr]
    until(lambda: host.run(["true"]).rc == 0 if not host.connected else host._links[0].drop())
    runpod.terminate(pod.id)
    assert runpod.is_gone(pod.id) and not (tmp_path / "pods" / pod.id).exists()
    import psutil

    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "300"]]
    host.close()


def test_a_pod_ends_itself_at_its_deadline_and_only_the_file_moves_it(real: tuple[FakeRunPod, RunPod],
                                                                      tmp_path: Path) -> None:
    server, runpod = real
    key = tmp_path / "run"
    public = make_key(key)
    server.cloud.plan("terminate_fails", 1)  # it asks again until it is gone
    ending = runpod.create(spec(public_key=public, gpu="NVIDIA GeForce RTX 4090", count=1,
                                command=deadline.start_command(time.time() + 3, api=server.base, every_s=0.2)))
    staying = runpod.create(spec(public_key=public, gpu="NVIDIA GeForce RTX 4090", count=1,
                                 command=deadline.start_command(time.time() + 90, api=server.base, every_s=0.2)))
    host = pod_host(runpod, staying.id, key, tmp_path / "known_hosts")
    until(lambda: runpod.is_gone(ending.id))
    deadline.set_deadline(host, time.time() + 3)
    moved = time.time() + 6
    deadline.set_deadline(host, moved)
    host.run(["sh", "-c", "echo junk > ~/other; touch ~/.llmconsole/deadline"])
    assert runpod.get(staying.id) is not None
    until(lambda: runpod.is_gone(staying.id))
    assert time.time() >= moved - 1
    host.close()
    server.cloud.end_all()


def test_a_pods_own_key_ends_only_itself(server: FakeRunPod, runpod: RunPod) -> None:
    one, other = runpod.create(spec()), runpod.create(spec(gpu="NVIDIA GeForce RTX 4090"))
    mine = RunPod(Secret(server.cloud.lives[one.id].key), base=server.base)
    for ask in (mine.pods, lambda: mine.get(other.id), lambda: mine.terminate(other.id)):
        with pytest.raises(AccessRefused):
            ask()
    mine.terminate(one.id)
    assert runpod.is_gone(one.id) and not runpod.is_gone(other.id)


@pytest.mark.parametrize(("fault", "status", "words"), [
    ("pod_error", "ERROR", "layer does not exist"), ("stuck_starting", "STARTING", "pulling image"),
    ("no_port", "RUNNING", "start container")])
def test_a_pod_that_never_gets_ready_says_why(real: tuple[FakeRunPod, RunPod], fault: str, status: str,
                                              words: str) -> None:
    server, runpod = real
    server.cloud.plan(fault)
    pod = runpod.create(spec(public_key="ssh-ed25519 AAAA"))
    until(lambda: runpod.get(pod.id).status == status)  # type: ignore[union-attr]
    until(lambda: words in runpod.log(pod.id, source=SYSTEM, tail=1)[0].text)
    assert runpod.get(pod.id).ssh is None  # type: ignore[union-attr]


def test_another_machine_at_the_pods_address_is_refused(real: tuple[FakeRunPod, RunPod], tmp_path: Path,
                                                        box) -> None:  # type: ignore[no-untyped-def]
    server, runpod = real
    key = tmp_path / "run"
    pod = runpod.create(spec(public_key=make_key(key)))
    until(lambda: runpod.get(pod.id).ssh)  # type: ignore[union-attr]
    container = server.cloud.lives[pod.id].container
    assert container is not None and container._sshd is not None
    container._sshd.close()
    container._sshd.port = box.port  # somebody else got the address
    host = pod_host(runpod, pod.id, key, tmp_path / "known_hosts")
    with pytest.raises(HostKeyChanged, match="that is another machine"):
        host.run(["true"])
    host.close()


def test_a_key_that_the_log_does_not_show_is_taken_on_trust_and_said(real: tuple[FakeRunPod, RunPod],
                                                                     tmp_path: Path) -> None:
    server, runpod = real
    server.cloud.plan("no_fingerprint")
    key = tmp_path / "run"
    pod = runpod.create(spec(public_key=make_key(key)))
    until(lambda: runpod.get(pod.id).ssh)  # type: ignore[union-attr]
    host = pod_host(runpod, pod.id, key, tmp_path / "known_hosts")
    assert host.run(["true"]).rc == 0
    assert host.pin.taken_on_trust.startswith("SHA256:")  # type: ignore[attr-defined]
    host.close()


def test_the_demo_is_a_process_of_its_own_that_is_found_again(tmp_path: Path) -> None:
    base, key = demo(tmp_path / "demo", hours=0.02)
    assert demo(tmp_path / "demo") == (base, key)
    assert (tmp_path / "demo" / "endpoint.json").stat().st_mode & 0o077 == 0
    runpod = RunPod(Secret(key), base=base)
    pod = runpod.create(spec())
    words = json.loads((tmp_path / "demo" / "endpoint.json").read_text())
    assert [each.id for each in runpod.pods()] == [pod.id]
    import os
    import signal

    os.kill(words["pid"], signal.SIGTERM)
    until(lambda: not (tmp_path / "demo" / "endpoint.json").exists())
    until(lambda: not list((tmp_path / "demo" / "pods").glob("*")))
    runpod.close()


# Secrets.


def test_secrets_do_not_slip_out() -> None:
    secret = Secret("canary-0123456789-value")
    assert "canary-0123" not in f"{secret} {secret!r} {secret!s:>40}" and "alue" in repr(secret)
    assert not Secret("")
    with pytest.raises(TypeError):
        json.dumps(secret)
    import base64
    import pickle

    with pytest.raises(TypeError):
        pickle.dumps(secret)
    texts = ("a canary-0123456789-value b", base64.b64encode(b"canary-0123456789-value").decode(),
             "Authorization: Bearer abcdefghijkl", "hf_" + "a" * 30, "rpa_" + "B1" * 15, "sk-or-v1-" + "c" * 40,
             "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n-----END OPENSSH PRIVATE KEY-----")
    for text in texts:
        assert "[secret]" in redactor(text) and "canary-0" not in redactor(text)
    assert redactor("loss: 1.25 | hf_ | step 3") == "loss: 1.25 | hf_ | step 3"


def test_an_error_never_shows_the_key(server: FakeRunPod) -> None:
    with pytest.raises(RateLimited) as caught:
        server.cloud.plan("rate_limited", 20)
        RunPod(Secret(server.key), base=server.base, patience=0).pods()
    assert server.key not in repr(caught.value)

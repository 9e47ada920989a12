"""A rented pod as a Host: its address is read anew before each connection, its key is checked against its own log.

Addresses and ports are recycled among strangers and a pod has new keys at every start, so the key counts as right only
when its fingerprint stands in the container's log, which comes from the provider under our API key. Also here: waiting
until a new pod can be used, saying at every moment what is being waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from remote.errors import (
    Cancelled,
    CommandTimeout,
    HostKeyChanged,
    HostRefused,
    HostUnreachable,
    ProviderError,
    RateLimited,
    RemoteError,
    RunnerFailed,
)
from remote.provider import CONTAINER, ERROR, EXITED, RUNNING, SYSTEM, TERMINATED, Pod, Provider
from remote.runpod.log_stream import host_fingerprint
from remote.ssh.host import KnownKey, SshHost
from remote.ssh.known_hosts import KnownHosts, fingerprint
from remote.ssh.link import pause
from remote.ssh.route import Route

LIMIT_S = 720.0      # a pod that cannot be used after this long is cheaper to replace
_LOOK_S = 5.0
_LOG_TAIL = 5000


class PodLost(RemoteError):
    """The pod will never be usable: it failed, ended, or is not there; the message says which and what it said last."""


class PodPin(KnownKey):
    """Right is the key whose fingerprint the pod's own log shows. Where the log shows none, the first key seen is
    taken, and `taken_on_trust` says so."""

    def __init__(self, provider: Provider, pod_id: str, known_hosts: KnownHosts) -> None:
        super().__init__(known_hosts, pod_id)
        self._provider = provider
        self.taken_on_trust = ""

    def key_types(self) -> list[str]:
        return ["ssh-ed25519"]

    def check(self, line: str) -> None:
        if line in self.known_hosts.pinned(self.alias):
            return
        shown, printed = fingerprint(line), self._printed()
        if printed and printed != shown:
            raise HostKeyChanged(f"the machine at the pod's address shows the key {shown}, but pod {self.alias} "
                                 f"printed {printed}: that is another machine; nothing was sent")
        if not printed:
            if self.known_hosts.pinned(self.alias):
                self.known_hosts.check(self.alias, line)
            self.taken_on_trust = shown
        self.known_hosts.forget(self.alias)
        self.known_hosts.pin(self.alias, line)

    def _printed(self) -> str:
        try:
            return host_fingerprint(self._provider.log(self.alias, source=CONTAINER, tail=_LOG_TAIL))
        except ProviderError as error:
            raise HostUnreachable(f"the pod's key cannot be checked: {error}") from None


def pod_host(provider: Provider, pod_id: str, key_file: Path, known_hosts: Path, *, name: str = "",
             python: Sequence[str] = ("python3",), connect_timeout: float = 15.0) -> SshHost:
    """The Host for a pod that was created with the public half of `key_file`."""

    def route() -> Route:
        try:
            pod = provider.get(pod_id)
        except ProviderError as error:
            raise HostUnreachable(f"the pod's address cannot be asked for: {error}") from None
        if pod is None or pod.status == TERMINATED:
            raise HostRefused(f"pod {pod_id} is gone")
        if pod.ssh is None:
            raise HostUnreachable(f"pod {pod_id} is {pod.status} and has no public SSH port yet")
        return Route(pod.ssh.host, pod.ssh.port, pod.ssh.user, (key_file,), only_these_keys=True)

    return SshHost(name or pod_id, route, PodPin(provider, pod_id, KnownHosts(known_hosts)), python=python,
                   connect_timeout=connect_timeout)


@dataclass(frozen=True)
class Waiting:
    """What a new pod is being waited for. `phase`: placing | pulling | starting | port | login | gpus | ready."""

    phase: str
    reason: str
    elapsed_s: float
    usd: float  # burnt so far at the agreed rate, since the create


def wait_until_ready(provider: Provider, pod_id: str, host: SshHost, *, gpus: int, usd_per_hour: float, created: float,
                     progress: Callable[[Waiting], None], stop: threading.Event, limit_s: float = LIMIT_S,
                     look_s: float = _LOOK_S, clock: Callable[[], float] = time.time) -> Pod:
    """Wait until someone can log in and every GPU answers. Raises PodLost, Cancelled, CommandTimeout after `limit_s`.

    `created` is wall time in seconds; a wait that is taken up again after a crash counts from there.
    """
    tries, said = 0, Waiting("placing", "", 0.0, 0.0)
    while not stop.is_set():
        phase, reason, pod = _look(provider, pod_id, host, gpus, clock() - created)
        elapsed = max(clock() - created, 0.0)
        said = Waiting(phase, reason, elapsed, elapsed / 3600 * usd_per_hour)
        progress(said)
        if phase == "ready" and pod is not None:
            return pod
        if elapsed > limit_s:
            raise CommandTimeout(f"pod {pod_id} was not usable after {elapsed / 60:.0f} min (${said.usd:.2f}): "
                                 f"{phase}: {reason}")
        tries = tries + 1 if phase in ("login", "gpus") else 0
        stop.wait(max(pause(tries), 1.0) if tries and look_s >= 1 else look_s)
    raise Cancelled(f"given up waiting for pod {pod_id}")


def _look(provider: Provider, pod_id: str, host: SshHost, gpus: int, age: float) -> tuple[str, str, Pod | None]:
    """(phase, reason, pod) as things are now. Raises PodLost."""
    try:
        pod = provider.get(pod_id)
        if pod is None:
            if age < 60:
                return "placing", "the provider does not list it yet", None
            raise PodLost(f"pod {pod_id} is not there any more: somebody ended it, or it never was placed")
        if pod.status in (ERROR, EXITED, TERMINATED):
            raise PodLost(f"pod {pod_id} is {pod.status}: {_last_words(provider, pod_id) or 'no reason given'}")
        if pod.status != RUNNING:
            words = _last_words(provider, pod_id)
            pulling = any(word in words.lower() for word in ("pull", "image", "download", "extract", "layer"))
            return ("pulling" if pulling else "placing" if pod.status == "PROVISIONING" else "starting"), words, pod
    except RateLimited as error:
        return "placing", str(error), None
    except PodLost:
        raise
    except ProviderError as error:
        return "placing", f"unknown: {error}", None
    if pod.ssh is None:
        return "port", "the container runs; its SSH port is not published yet", pod
    return (*_log_in(host, gpus), pod)


def _log_in(host: SshHost, gpus: int) -> tuple[str, str]:
    try:
        host.connect()
        if gpus == 0:
            return "ready", "someone can log in"
        done = host.run(["nvidia-smi", "-L"], timeout=30)
        seen = done.out.count(b"GPU ")
        if seen < gpus:
            words = done.err.decode(errors="replace").strip()
            return "gpus", f"{seen} of {gpus} GPUs answer{': ' + words if words else ''}"
        return "ready", f"{seen} GPUs answer"
    except HostKeyChanged:
        raise
    except HostUnreachable as error:
        return "login", str(error)
    except (RunnerFailed, CommandTimeout) as error:
        return "gpus", str(error)


def _last_words(provider: Provider, pod_id: str) -> str:
    try:
        lines = provider.log(pod_id, source=SYSTEM, tail=5)
    except ProviderError as error:
        return f"its log cannot be read: {error}"
    return lines[-1].text if lines else ""

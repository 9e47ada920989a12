"""Which key a rented pod must show: the one whose fingerprint stands in its own log.

Addresses and ports are recycled among strangers and a pod has new keys at every start; its container's log comes from
the provider under our API key, so a machine in between cannot write there.
"""

from __future__ import annotations

from remote.errors import HostKeyChanged, HostUnreachable, ProviderError
from remote.provider import CONTAINER, Provider
from remote.runpod.log_stream import host_fingerprint
from remote.ssh.host import KnownKey
from remote.ssh.known_hosts import KnownHosts, fingerprint

_LOG_TAIL = 5000


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

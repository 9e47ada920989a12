"""What a failed `uv` says, as a sentence for a person: cause, consequence, what to try. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from remote.errors import RunnerFailed

# The old and the new name of the same thing: trust what the machine's own store trusts.
SYSTEM_CERTS = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}

_CERTIFICATE = re.compile(r"UnknownIssuer|invalid peer certificate|certificate verify failed|self.signed certificate",
                          re.IGNORECASE)
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (_CERTIFICATE,
     "the package index shows a certificate that is not trusted there, as behind a company's proxy; name the file with "
     "its certificates: llmconsole target up {name} --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"),
    (re.compile(r"No space left on device|os error 28"),
     "its disk is full and the environment takes 7 GB; free some space there, or add the machine with a user whose "
     "home lies on a larger disk"),
    (re.compile(r"407|proxy authentication", re.IGNORECASE),
     "a proxy on its way to the package index wants a login; log that machine in, or name another way: "
     "llmconsole target up {name} --env HTTPS_PROXY=http://host:port"),
    (re.compile(r"dns error|lookup address|name resolution|tcp connect error|Connection refused|timed out|unreachable",
                re.IGNORECASE),
     "it reaches no package index; check its network, or name the proxy: "
     "llmconsole target up {name} --env HTTPS_PROXY=http://host:port"),
    (re.compile(r"No solution found|no version of|not found in the package registry", re.IGNORECASE),
     "the package index that it uses lacks a version that this program was tested with; name another one: "
     "llmconsole target up {name} --env UV_DEFAULT_INDEX=https://..."),
)


class CertificateUnknown(RunnerFailed):
    """The index's certificate is not among those that uv brings along; the machine itself may trust it."""


def failure(what: str, name: str, output: str) -> RunnerFailed:
    """The error for a failed step on the machine called `name`; `output` is the end of what was printed."""
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("hint:")), "no word why")
    why = next((text for pattern, text in _KNOWN if pattern.search(output)), "")
    kind: Callable[[str], RunnerFailed] = CertificateUnknown if _CERTIFICATE.search(output) else RunnerFailed
    advice = f": {why.format(name=name)}" if why else ""
    return kind(f"{what} on {name} failed, so nothing can run there{advice} (it said: {last[:200]})")

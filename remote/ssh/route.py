"""How a machine is reached: address, user, keys, a proxy command; with the user's ~/.ssh/config honoured for these.

Only HostName, Port, User, IdentityFile, IdentitiesOnly, ProxyJump and ProxyCommand are taken from there: no forwarding,
no environment, and never a setting about host keys.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.ssh.keys import USUAL_NAMES


@dataclass(frozen=True)
class Route:
    """One way to a machine. `key_files` are tried in order, then the agent's keys unless `only_these_keys`."""

    host: str
    port: int = 22
    user: str = ""
    key_files: tuple[Path, ...] = ()
    only_these_keys: bool = False
    proxy_command: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def resolve(host: str, port: int = 0, user: str = "", key_file: Path | None = None,
            folder: Path | None = None) -> Route:
    """The route to a host name or an alias of `folder`/config (~/.ssh); what is given beats what stands there."""
    folder = folder or Path.home() / ".ssh"
    known = _lookup(folder / "config", host)
    named = [Path(name).expanduser() for name in known.get("identityfile", ())]
    files = [key_file] if key_file else [path for path in [*named, *(folder / name for name in USUAL_NAMES)]
                                         if path.exists()]
    return Route(host=str(known.get("hostname", host)), port=port or int(known.get("port", 22)),
                 user=user or str(known.get("user", "")) or getpass.getuser(),
                 key_files=tuple(dict.fromkeys(files)),
                 only_these_keys=key_file is not None or str(known.get("identitiesonly", "no")).lower() == "yes",
                 proxy_command=_proxy(known))


def _lookup(config: Path, host: str) -> dict[str, Any]:
    import paramiko

    if not config.is_file():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(config)).lookup(host))
    except (paramiko.SSHException, paramiko.ConfigParseError, OSError, ValueError):
        return {}  # a file that ssh itself may read better than we do: the plain address still works


def _proxy(known: dict[str, Any]) -> str:
    jump = str(known.get("proxyjump", "") or "")
    if jump and jump.lower() != "none":
        return f"ssh -W [{known.get('hostname')}]:{known.get('port', 22)} {jump}"
    command = str(known.get("proxycommand", "") or "")
    return "" if command.lower() == "none" else command

"""The first contact with another machine: whose key it shows, what it is; nothing there is changed.

The screen and `target add` ask a person in their own way whether the key is right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import Refused, UsageProblem
from console.machines.targets import SSH, Target, Targets, name_for, parse_address
from console.paths import Home

if TYPE_CHECKING:
    from remote.survey import Survey


def target_for(home: Home, address: str, name: str = "", key: Path | None = None) -> Target:
    """A target as it will be called. Raises UsageProblem for an address or a name that cannot be."""
    user, host, port = parse_address(address)
    found = Target(name or name_for(host), SSH, user, host, port, str(key.expanduser().absolute()) if key else "")
    if not name and found.name in {target.name for target in Targets(home.path).all()}:
        raise UsageProblem(f"there is a target called {found.name} already", "give this one a --name")
    return found


def first_look(home: Home, address: str) -> str:
    """The fingerprint of the key that a machine shows; '' when it is the pinned one. Nothing is written."""
    from console.machines.hosts import ssh_host
    from remote.errors import HostKeyUnknown

    box = ssh_host(target_for(home, address), home, listed=False)
    try:
        box.connect()
    except HostKeyUnknown as unknown:
        return unknown.fingerprint
    finally:
        box.close()
    return ""


def look(target: Target, home: Home, agree: Callable[[str], None], *, keep: bool = True) -> Survey:
    """Connect, have the key agreed upon (`agree` raises when it is not) and pinned, and ask what the machine is.

    Without `keep` the pin is forgotten with a temporary folder. Raises HostKeyChanged, LoginRefused, HostUnreachable.
    """
    from console.machines.hosts import ssh_host
    from remote.errors import HostKeyUnknown
    from remote.ssh.known_hosts import KnownHosts
    from remote.survey import survey

    with tempfile.TemporaryDirectory(prefix="llmconsole-look-") as folder:
        state = home if keep else Home(Path(folder))
        box = ssh_host(target, state, listed=False)
        try:
            try:
                box.connect()
            except HostKeyUnknown as unknown:
                agree(unknown.fingerprint)
                KnownHosts(state.known_hosts).pin(target.alias, unknown.line)
                box.connect()
            return survey(box)
        finally:
            box.close()


def add(home: Home, target: Target, surveyed: Survey, base: str = "") -> Target:
    """Remember a machine that was looked at. Raises Refused when nothing can run there."""
    from console.machines.preparing import base_for

    if problems := surveyed.problems():
        raise Refused("not added: " + "; ".join(problems))
    added = Target(**{**vars(target), "base": base or base_for(surveyed, target), "facts": surveyed.facts})
    Targets(home.path).put(added)
    return added

"""Names of targets and how to reach each: today this machine, which is always there and costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.errors import NotFound

if TYPE_CHECKING:
    from remote.host import Host

LOCAL = "local"
TITLES = {LOCAL: "this machine"}


def host_for(target: str) -> Host:
    """The Host that reaches `target`. Raises NotFound for a name that nobody defined."""
    from remote.local import LocalHost

    if target != LOCAL:
        raise NotFound(f"no target is called {target!r}; known: {', '.join(TITLES)}",
                       "leave --target out to use this machine")
    return LocalHost()

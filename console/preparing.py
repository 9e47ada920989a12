"""Putting our program on another machine, told step by step; quick when it is there already.

What is there afterwards is written into the target: its Python, its base directory and what it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from console.errors import Refused
from console.targets import POD, Target, Targets
from console.version import version

if TYPE_CHECKING:
    from remote.host import Host
    from remote.ssh import SshHost
    from remote.survey import Survey

_ASK = ("import sys; from importlib import metadata, util; import engine; assert util.find_spec('torch'); "
        "print(metadata.version('llmconsole')); print(sys.executable)")


def prepare(host: SshHost, targets: Targets, target: Target, tell: Callable[[str], None],
            stop: threading.Event | None = None, base: str = "") -> Target:
    """Look, prepare, remember. Raises Refused where nothing can run, and RemoteError."""
    from remote.survey import survey

    tell("looking at the machine")
    found = survey(host)
    if problems := found.problems():
        raise Refused(f"{target.name} cannot be used: " + "; ".join(problems))
    chosen = base or target.base or base_for(found, target)
    python = installed(host, [target.python, (found.python,)])
    if not python:
        from remote.bootstrap import bootstrap

        python = bootstrap(host, found, tell, stop)
    return targets.change(target.name, base=chosen, python=tuple(python), facts=found.facts)


def installed(host: Host, pythons: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The first of these interpreters that has exactly our version, with the libraries that train; () for none."""
    for python in pythons:
        if python and python[0]:
            done = host.run([*python, "-c", _ASK], timeout=60)
            words = done.out.decode("utf-8", "replace").split("\n")
            if done.rc == 0 and words[0] == version():
                return (words[1],)
    return ()


def base_for(found: Survey, target: Target) -> str:
    """Where artifacts go: on a pod beside its home, else on the volume, else where nanochat itself puts them."""
    if target.kind == POD:
        return f"{found.home}/nanochat"
    writable = {disk.path for disk in found.disks if disk.writable}
    return "/workspace/nanochat" if "/workspace" in writable else f"{found.home}/.cache/nanochat"

"""Putting our program on another machine, told step by step; quick when it is there already.

What is there afterwards is written into the target: its Python, its base directory and what it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from console.errors import Refused
from console.machines.targets import POD, Target, Targets
from remote.errors import RunnerFailed

if TYPE_CHECKING:
    from remote.host import Host
    from remote.ssh.host import SshHost
    from remote.survey import Survey

_ASK = """
from importlib import metadata, util
assert all(map(util.find_spec, ("tiktoken", "pyarrow", "psutil", "numpy", "safetensors", "huggingface_hub")))
assert tuple(map(int, metadata.version("torch").split("+")[0].split(".")[:2])) >= (2, 10)
"""


def prepare(host: SshHost, targets: Targets, target: Target, tell: Callable[[str], None],
            stop: threading.Event | None = None, base: str = "", python: str = "", env: Mapping[str, str] | None = None,
            least_gpus: int = 0, pretended_gpus: bool = False) -> Target:
    """Look, prepare, remember. Raises Refused where nothing can run, and RemoteError.

    `env` is remembered, and added to the environment of what is installed and run there from now on. `python` is an
    interpreter there whose environment has the libraries: then only our own code is put beside it. `least_gpus` have to
    answer; `pretended_gpus`: they cannot be used, as in the demo's pods, so PyTorch is not asked for them.
    """
    from remote.bootstrap import bootstrap
    from remote.survey import survey

    tell("looking at the machine")
    found = survey(host)
    if problems := found.problems():
        raise Refused(f"{target.name} cannot be used: " + "; ".join(problems))
    if len(found.gpus) < least_gpus:
        raise RunnerFailed(f"{len(found.gpus)} of {least_gpus} GPUs answer on {target.name}")
    for warning in found.warnings():
        tell(f"note: {warning}")
    chosen = base or target.base or base_for(found, target)
    usable = replace(found, gpus=()) if pretended_gpus else found
    if python and not has_libraries(host, python):
        raise Refused(f"{python} on {target.name} lacks torch 2.10 or another library that training needs",
                      f"leave --python out: llmconsole target up {target.name} makes an environment of its own")
    there = python or (found.python if has_libraries(host, found.python) else "")
    given = {**target.env, **(env or {})}
    words = bootstrap(host, usable, tell, stop, python=(there,) if there else (), env=given)
    return targets.change(target.name, base=chosen, python=tuple(words), facts=found.facts, env=given)


def has_libraries(host: Host, python: str) -> bool:
    """Whether a Python there has what training needs, so that only our own code has to be sent."""
    return bool(python) and host.run([python, "-c", _ASK], timeout=60).rc == 0


def base_for(found: Survey, target: Target) -> str:
    """Where artifacts go: on a pod beside its home, else on the volume, else where nanochat itself puts them."""
    if target.kind == POD:
        return f"{found.home}/nanochat"
    writable = {disk.path for disk in found.disks if disk.writable}
    return "/workspace/nanochat" if "/workspace" in writable else f"{found.home}/.cache/nanochat"

"""`target log`: what the provider says about a rented pod and what its container printed, also when SSH is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from console.cli.output import emit_json, emit_json_line, line
from console.errors import NotFound
from console.exit_codes import Exit
from console.text import clean_line

if TYPE_CHECKING:
    from console.workspace import Workspace
    from remote.provider import LogLine


def print_pod_log(workspace: Workspace, name: str, source: str, tail: int, follow: bool, as_json: bool) -> int:
    """The last lines; with `follow` the rest as it comes, reconnecting by itself, until the pod is gone."""
    rental = workspace.operator.rentals.find(name)
    if not rental.pod:
        raise NotFound(f"{name} has no pod yet: {rental.note or rental.phase}", "try again when it is created")
    provider = workspace.operator.rentals.provider()
    if not follow:
        found = provider.log(rental.pod, source=source, tail=tail)
        if as_json:
            emit_json({"target": name, "pod": rental.pod, "lines": found})
        else:
            _print(found)
        return Exit.OK
    for each in provider.follow_log(rental.pod, threading.Event(), source=source, tail=tail):
        if as_json:
            emit_json_line(each)
        else:
            _print([each])
    return Exit.OK


def _print(lines: Iterable[LogLine]) -> None:
    for each in lines:
        line(f"{clean_line(each.time, 30)}  {each.source:<9} {clean_line(each.text, 2000)}")

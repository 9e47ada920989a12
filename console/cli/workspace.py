"""How verbs open the console's state: shortly, and never in the way of a screen that may be opened meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from console.cli.output import note
from console.errors import NotFound
from console.workspace import Workspace


@contextmanager
def fresh_workspace(ctx: click.Context, *, patience: float = 0.0) -> Iterator[Workspace]:
    """The state with everything read in that has happened; when another console is open, as that one has read it.

    `patience` is how many seconds to wait for another short verb to end, for those that want to change something.
    """
    with Workspace.open(read_only=ctx.find_root().obj["read_only"], patience=patience) as workspace:
        for notice in workspace.notices:
            note(notice)
        for sentence in workspace.operator.rentals.nudge():
            note(sentence)
        workspace.ingest()
        yield workspace


def chosen_run(workspace: Workspace, run_id: str | None) -> str:
    """The run that was named, checked, or the newest one."""
    if run_id is not None:
        workspace.operator.locate(run_id)
        return run_id
    newest = workspace.queries.runs(1)
    if not newest:
        raise NotFound("there are no runs yet", "llmconsole run start tiny --wait starts one")
    return newest[0].id

"""Begins to follow a run that others started: what is followed is looked at first, then a run folder is made here.

The following itself is `console.attached`, a job of that run. Nothing is written on the other machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from console.attached import description
from console.errors import NotFound, Refused, UsageProblem
from console.machines.targets import LOCAL
from engine.rundir import RunDir, base_dir, new_run_id, runs_dir, valid_run_id
from remote.errors import NoSuchFile

if TYPE_CHECKING:
    from console.workspace import Workspace


def attach(workspace: Workspace, target: str, log: str = "", folder: str = "", run_id: str = "") -> str:
    """Follow a console log, or all logs and checkpoints of a folder; the run's id here.

    Raises UsageProblem, NotFound where there is no such log or folder, Refused for an id that is taken.
    """
    if bool(log) == bool(folder):
        raise UsageProblem("say what to follow: a log or a folder", "add --log PATH or --dir DIR")
    log, folder = _absolute(workspace, target, log), _absolute(workspace, target, folder).rstrip("/")
    _must_be_there(workspace, target, log, folder)
    run = run_id or new_run_id("attached")
    if not valid_run_id(run):
        raise UsageProblem(f"{run!r} cannot name a run", "use letters, digits, '.', '_' and '-', at most 80")
    path = runs_dir(base_dir()) / run
    if RunDir(path).run_json.exists():
        raise Refused(f"there is a run called {run} already", f"llmconsole run resume {run} follows on, or use --id")
    where = "this machine" if target == LOCAL else target
    title = f"nanochat on {where}: {Path(log or folder).name}"
    workspace.operator.begin(run, LOCAL, str(path), description(run, target, title, log, folder))
    return run


def _absolute(workspace: Workspace, target: str, path: str) -> str:
    """A path there; `~` is that machine's, and on this one a relative path is taken from where we are."""
    if path.startswith("~/"):
        home = workspace.hosts.get(target).run(["/bin/sh", "-c", 'printf %s "$HOME"']).out.decode()
        return f"{home}/{path[2:]}"
    if path and not path.startswith("/"):
        if target != LOCAL:
            raise UsageProblem(f"{path} is no whole path", "begin it with / or ~/")
        return str(Path(path).absolute())
    return path


def _must_be_there(workspace: Workspace, target: str, log: str, folder: str) -> None:
    host = workspace.hosts.get(target)
    if log and host.stat(log) is None:
        raise NotFound(f"there is no {log} on {target}", "the path of the file that nanochat's output goes to")
    if folder:
        try:
            host.listdir(folder)
        except (NoSuchFile, NotADirectoryError) as error:
            raise NotFound(f"there is no folder {folder} on {target}") from error

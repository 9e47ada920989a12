"""Begins to follow a run that others started: what is followed is looked at first, then a run folder is made here.

The following itself is `console.attached`, a job of that run. Nothing is written on the other machine.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console.attached import description
from console.errors import NotFound, Refused, UsageProblem
from console.machines.targets import LOCAL
from engine.nanochat_log import SOURCES, TITLES, Found, NanochatLog
from engine.rundir import RunDir, base_dir, new_run_id, runs_dir, valid_run_id
from remote.errors import NoSuchFile, RemoteError

if TYPE_CHECKING:
    from console.workspace import Workspace
    from remote.host import Host

_WHOLE, _PART = 16 << 20, 2 << 20  # a log up to the first size is read whole, of a longer one its beginning and end
_ERAS = ((re.compile(rb"bf16_mfu: |COMPUTE_DTYPE: |Tokens : Scaling params"), "modern"),
         (re.compile(rb"\| mfu: |^num_layers: |^Overriding: ", re.MULTILINE), "classic"))


@dataclass(frozen=True)
class Sight:
    """What a look at a log or folder found. `step` and `total` are the newest of the last stage; `lines` None: many."""

    path: str
    folder: bool
    bytes: int = 0
    lines: int | None = 0
    era: str = ""  # classic | modern, by what nanochat prints; '' when nothing tells
    stage: str = ""
    step: int | None = None
    total: int | None = None
    logs: tuple[str, ...] = ()  # of a folder
    checkpoints: int = 0

    def __str__(self) -> str:
        """`found: 150 lines, classic nanochat, Base at step 59 of 60`."""
        if self.folder and not self.logs:
            return f"found: a folder without a *.log so far, {self.checkpoints} checkpoints; it is looked at again"
        words = [f"{len(self.logs)} logs, {self.checkpoints} checkpoints, newest log"] if self.folder else []
        words.append(f"{self.lines:,} lines" if self.lines is not None else f"{self.bytes / 1e6:.0f} MB")
        words.append(f"{self.era} nanochat" if self.era else "nothing that nanochat prints so far")
        if self.stage:
            at = "" if self.step is None else f" at step {self.step:,}" + (f" of {self.total:,}" if self.total else "")
            words.append(TITLES.get(self.stage, self.stage) + at)
        return "found: " + ", ".join(words)


def look_at(workspace: Workspace, target: str, path: str) -> Sight:
    """What is at this path of that machine; nothing is written anywhere.

    Raises UsageProblem, NotFound where there is nothing, RemoteError.
    """
    whole = _absolute(workspace, target, path.strip()).rstrip("/")
    if not whole:
        raise UsageProblem("say what to follow: the path of a log, or of a folder with logs")
    host = workspace.hosts.get(target)
    names = _names(host, whole)
    if names is None:
        return _read_log(host, whole, Sight(whole, False))
    logs = tuple(name for name in names if name.endswith((".log", ".txt")))
    found = Sight(whole, True, logs=logs, checkpoints=_count_checkpoints(host, whole, names))
    newest = max(logs, key=lambda name: _changed(host, f"{whole}/{name}"), default=None)
    return found if newest is None else _read_log(host, f"{whole}/{newest}", found)


def complete(workspace: Workspace, target: str, path: str) -> str | None:
    """The first path there that begins like this one; None when there is none, or nobody answers."""
    parent, slash, begun = path.rpartition("/")
    if not slash or not begun:
        return None
    with suppress(RemoteError, OSError, UsageProblem, NotFound):
        names = _names(workspace.hosts.get(target), _absolute(workspace, target, f"{parent}/").rstrip("/") or "/")
        return next((f"{parent}/{name}" for name in names or () if name.startswith(begun)), None)
    return None


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
    workspace.operator.begin(run, 1, LOCAL, str(path), description(run, target, title, log, folder))
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
    if log and _names(host, log) is not None:
        raise UsageProblem(f"{log} is a folder, and a log is a file", f"--dir {log} follows every *.log in it")
    if folder and _names(host, folder) is None:
        raise NotFound(f"there is no folder {folder} on {target}")


def _names(host: Host, path: str) -> list[str] | None:
    """What is in a folder, or None when that is none."""
    try:
        return host.listdir(path)
    except (NoSuchFile, NotADirectoryError):
        return None


def _changed(host: Host, path: str) -> float:
    found = host.stat(path)
    return found.mtime if found else 0.0


def _count_checkpoints(host: Host, folder: str, names: list[str]) -> int:
    kinds = [f"{folder}/{name}" for name in names if name in SOURCES]
    saved = [name for kind in kinds for tag in _names(host, kind) or () for name in _names(host, f"{kind}/{tag}") or ()]
    return sum(name.startswith("model_") and name.endswith(".pt") for name in saved)


def _read_log(host: Host, path: str, found: Sight) -> Sight:
    stat = host.stat(path)
    if stat is None:
        raise NotFound(f"there is no {path} on {host.name}", "the path of the file that nanochat's output goes to")
    whole = stat.size <= _WHOLE
    parts = [host.read(path, 0, _WHOLE)] if whole else [host.read(path, 0, _PART),
                                                        host.read(path, stat.size - _PART).partition(b"\n")[2]]
    parser = NanochatLog(next((stage for stage in TITLES if stage in Path(path).name), None))
    events = [event for part in parts for event in parser.feed(part)]
    era = next((era for pattern, era in _ERAS if any(pattern.search(part) for part in parts)), "")
    step, total = _last_step(events)
    return Sight(found.path, found.folder, stat.size, parts[0].count(b"\n") if whole else None, era,
                 parser.stage or "", step, total, found.logs, found.checkpoints)


def _last_step(events: list[Found]) -> tuple[int | None, int | None]:
    step = next((event.step for event in reversed(events) if event.kind == "metric"), None)
    total = next((event.data.get("total") for event in reversed(events) if event.kind == "stage"
                  and event.data.get("unit") == "steps"), None)
    return step, total if isinstance(total, int) else None

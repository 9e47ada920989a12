"""How `run logs` prints and follows a stage's log, over the Host protocol and without any lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.cli.output import note
from console.errors import NotFound
from console.exit_codes import Exit
from console.text import clean
from console.workspace import Workspace
from engine.rundir import RunDir
from remote.errors import NoSuchFile

if TYPE_CHECKING:
    from remote.host import Host

_PIECE, _POLL_S, _STATE_EVERY_S = 1 << 18, 0.2, 1.0


def print_log(run_id: str, target: str, path: str, stage: str | None, lines: int, follow: bool) -> int:
    """Print the last `lines` (0: all) of a log; with `follow`, and of the logs of later stages, until the run ends."""
    with Workspace.open(read_only=True) as workspace:
        host, folder = workspace.hosts.get(target), RunDir(Path(path))
        file = _chosen(host, folder, run_id, stage)
        if file is None and not follow:
            raise NotFound(f"{run_id} has written no log yet", "llmconsole run logs --follow waits for it")
        offset = _start(host, file, lines) if file else 0
        if follow:
            _follow(host, folder, file, offset, stage,
                    lambda: workspace.operator.state(run_id, tail=False, fresh=True).alive)
        elif file:
            _print_from(host, file, offset)
    return Exit.OK


def _chosen(host: Host, folder: RunDir, run_id: str, stage: str | None) -> str | None:
    """The log file of a stage, or the newest one. Raises NotFound for a stage without a log."""
    logs = _files(host, str(folder.logs))
    if stage is None:
        return logs[-1] if logs else None
    if stage == "job":
        return job_logs[-1] if (job_logs := _files(host, str(folder.job), "output.")) else None
    wanted = stage.replace("-", "_")
    matches = [log for log in logs if wanted in (_stage_of(log).replace("-", "_"), _stage_of(log).partition("-")[2])]
    if not matches:
        known = ", ".join(map(_stage_of, logs)) or "none yet"
        raise NotFound(f"{run_id} has no log of a stage {stage!r}", f"it has: {known}")
    return matches[-1]


def _files(host: Host, folder: str, prefix: str = "") -> list[str]:
    """The log files in a folder, in order."""
    try:
        names = host.listdir(folder)
    except NoSuchFile:
        return []
    return [f"{folder}/{name}" for name in names if name.startswith(prefix) and name.endswith(".log")]


def _stage_of(log: str) -> str:
    return Path(log).stem


def _start(host: Host, file: str, lines: int) -> int:
    """Where the last `lines` lines begin; says on stderr when something is left out."""
    found = host.stat(file)
    if found is None or lines <= 0:
        return 0
    ends_whole = host.read(file, max(0, found.size - 1), 1) == b"\n"
    start, missing = found.size, lines + ends_whole
    while start > 0:
        piece = host.read(file, max(0, start - _PIECE), min(_PIECE, start))
        breaks = piece.count(b"\n")
        if breaks >= missing:
            at = len(piece)
            for _ in range(missing):
                at = piece.rindex(b"\n", 0, at)
            note(f"showing the last {lines} lines of {file}; -n 0 shows all")
            return start - len(piece) + at + 1
        start, missing = start - len(piece), missing - breaks
    return 0


def _print_from(host: Host, file: str, offset: int) -> int:
    """Print whole lines from `offset`, and a torn last one at the end of the file; where printing ended."""
    held = b""
    while piece := host.read(file, offset, _PIECE):
        offset += len(piece)
        held += piece
        whole, newline, held = held.rpartition(b"\n")
        if newline:
            click.echo(clean(whole.decode("utf-8", "replace")))
    if held:
        click.echo(clean(held.decode("utf-8", "replace")))
    return offset


def _follow(host: Host, folder: RunDir, file: str | None, offset: int, stage: str | None,
            alive: Callable[[], bool]) -> None:
    next_look = 0.0
    while True:
        before, ended = offset, False
        if time.monotonic() >= next_look:  # asked before the last read, so that nothing written until the end is missed
            ended, next_look = not alive(), time.monotonic() + _STATE_EVERY_S
        if file is not None:
            offset = _print_new(host, file, offset, final=ended)
        if offset != before:
            next_look = time.monotonic() + _STATE_EVERY_S
        later = [log for log in _files(host, str(folder.logs)) if file is None or log > file] if stage is None else []
        if later:
            file, offset = later[0], 0
            note(f"==> {_stage_of(file)} <==")
        elif ended:
            return
        else:
            time.sleep(_POLL_S)


def _print_new(host: Host, file: str, offset: int, final: bool) -> int:
    """Print the lines that were completed since `offset`, all of the rest when it is `final`; the new offset."""
    try:
        data = host.read(file, offset)
    except NoSuchFile:
        return offset
    whole = len(data) if final else data.rfind(b"\n") + 1
    if whole:
        click.echo(clean(data[:whole].decode("utf-8", "replace").removesuffix("\n")))
    return offset + whole

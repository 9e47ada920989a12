"""One file for whoever helps: versions, doctor, settings, states, the ends of logs, crashes. No secrets, no data, no
weights; every text passes the redactor that crash files pass.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from console.crash import redact
from console.machines.mirror import folder_of

if TYPE_CHECKING:
    from console.workspace import Workspace

_TAIL = 64 << 10  # bytes of each log
_CRASHES = 5


def save_bundle(workspace: Workspace, run: str | None) -> Path:
    """Write the bundle to the console's folder, readable by its owner alone; its path. Raises OSError."""
    path = workspace.home.path / f"bundle-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    private = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(private, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _texts(workspace, run):
            data = redact(text).encode()
            entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return path


def _texts(workspace: Workspace, run: str | None) -> Iterator[tuple[str, str]]:
    from console.doctor import examine

    home = workspace.home
    findings = examine(home, str(workspace.owner or ""))
    yield "doctor.txt", "".join(f"{each.level:<8} {each.name:<10} {each.text}  {each.next}\n" for each in findings)
    for file in (home.config, home.keymap):
        if file.exists():
            yield file.name, file.read_text(encoding="utf-8", errors="replace")
    runs = workspace.queries.runs(50)
    states = workspace.operator.states(runs, ask=False)
    yield "runs.txt", "".join(f"{each.id}  {states[each.id].word}  {states[each.id].text}\n" for each in runs)
    for number, crash in enumerate(sorted((home.path / "crash").glob("*.txt"), reverse=True)[:_CRASHES], 1):
        yield f"crash-{number}.txt", crash.read_text(encoding="utf-8", errors="replace")
    if run is not None:
        yield from _run_texts(workspace, run)


def _run_texts(workspace: Workspace, run: str) -> Iterator[tuple[str, str]]:
    target, path = workspace.operator.locate(run)
    folder = folder_of(workspace.home, run, target, path)
    state = workspace.operator.state(run)
    yield f"{run}/state.txt", f"{state.word}: {state.text}\n{state.next}\n"
    yield f"{run}/run.json", json.dumps(workspace.queries.description(run), indent=2)
    events = workspace.queries.events(run, limit=200)
    yield f"{run}/events.txt", "".join(f"{e.t:.3f} {e.kind} {e.stage} {e.step} {e.data}\n" for e in events)
    for log in [*sorted(folder.logs.glob("*.log")), *sorted(folder.job.glob("output.*.log"))]:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            yield f"{run}/{log.name}", file.read().decode("utf-8", "replace")

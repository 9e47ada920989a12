"""The run's checkpoints copied elsewhere and proven, as a step of the pipeline: nobody needs to be connected.

The copying is a process of its own that knows nothing of stages (`python -m remote.backup.run`); here its lines become
progress, words in the log and, when a copy is not proven, an alert or the end of the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from engine.context import StageContext, StageError, Stopped
from engine.settings.safekeeping import Backup

_WORDS = {3: "the place for copies does not answer", 4: "the token is missing or was refused", 5: "it was refused",
          7: "some copies are not proven"}
_GB = 1e9


def run(config: Backup, context: StageContext) -> None:
    """Copy and prove everything below the base directory. Raises StageError when that fails and `strict` is on."""
    argv = [sys.executable, "-m", "remote.backup.run", "--to", config.to, "--base", str(context.base_dir)]
    argv += ["--label", context.run_dir.name] if context.run_dir else []
    last: dict[str, Any] = {}
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            last = _hear(line, context) or last
            if context.stop_requested:
                child.terminate()
    if context.stop_requested:
        raise Stopped
    _conclude(config, context, child.returncode, last)


def _hear(line: str, context: StageContext) -> dict[str, Any] | None:
    """One line of the child: progress, or how it ended."""
    try:
        told = json.loads(line)
    except ValueError:
        context.log(line.rstrip())
        return None
    if "phase" not in told:
        return dict(told)
    if told["note"]:
        context.log(f"{told['file']}: {told['note']}")
    context.progress(told["done"] / _GB, max(told["total"], 1) / _GB, f"GB {told['phase']} {told['file']}")
    return None


def _conclude(config: Backup, context: StageContext, code: int, last: dict[str, Any]) -> None:
    for location in last.get("proven", []):
        context.log(f"proven: {location}")
    for loss in last.get("failed", []):
        context.log(f"NOT proven: {loss['checkpoint']}: {loss['reason']}")
    context.report("Backup", {"to": config.to, "proven": len(last.get("proven", [])),
                              "not proven": len(last.get("failed", []))})
    if code == 0:
        return
    reason = last.get("error") or _WORDS.get(code, f"exit code {code}")
    text = f"the checkpoints of this run are not safe at {config.to}: {reason}"
    if config.strict:
        raise StageError(text, "resume runs the backup again; nothing is sent twice", "backup")
    context.events.alert("error", "backup", text, "back up again from the console before the machine ends")

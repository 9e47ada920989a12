"""The report card: what every stage measured, on one page for people and in one file for programs.

Stages leave their part in `report/<slug>.json`; here the parts are gathered, timed and written as report.md and
report.json beside them. A part that cannot be read is named and left out: the others are still worth reading.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from engine import machine, report_page
from engine.code_size import code_size
from engine.context import StageContext
from engine.events import Event, parse_line, split_lines
from engine.rundir import RunDir, write_atomic
from engine.settings.evaluation import Report

ORDER = ("dataset", "tokenizer-training", "tokenizer-evaluation", "base-model-training", "base-model-evaluation",
         "midtraining", "chat-evaluation-mid", "chat-sft", "chat-evaluation-sft", "chat-rl", "chat-evaluation-rl")
_CARD = "report"  # report.json and report.md are no parts
_USD_PER_GPU_HOUR = (("H100", 3.00), ("A100", 1.79), ("V100", 0.55))  # what nanochat's report reckons with
_USD_PER_OTHER_GPU_HOUR = 2.00


def run(config: Report, context: StageContext) -> None:
    """Write report/report.md and report/report.json of this base directory."""
    folder = context.base_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    card = gather(context)
    write_atomic(folder / f"{_CARD}.json", json.dumps(card, indent=2).encode() + b"\n")
    text = report_page.page(card)
    write_atomic(folder / f"{_CARD}.md", text.encode())
    context.log(text)
    context.log(f"written: {folder / f'{_CARD}.md'}")
    context.progress(1, 1, "pages")


def gather(context: StageContext) -> dict[str, Any]:
    """Everything that the page tells, as plain data."""
    run_dir = RunDir(context.run_dir) if context.run_dir else None
    described = _read(run_dir.run_json, context) if run_dir else None
    events = _events(run_dir.events) if run_dir else []
    return {
        "v": 1, "generated": time.time(), "started": events[0].t if events else None,
        "run": run_dir.id if run_dir else None, "recipe": (described or {}).get("recipe"),
        "environment": environment(context.base_dir), "timing": timing(described, run_dir, events),
        "sections": sections(context),
    }


def sections(context: StageContext) -> dict[str, dict[str, Any]]:
    """The parts by slug, in the order of the pipeline; parts that nobody ordered come last, by time."""
    found = {}
    for path in (context.base_dir / "report").glob("*.json"):
        part = _read(path, context) if path.stem != _CARD else None
        if part is not None and isinstance(part.get("data"), dict) and isinstance(part.get("time"), (int, float)):
            found[path.stem] = {"title": str(part.get("title", path.stem)), "time": part["time"],
                                "data": _finite(part["data"])}
    places = {slug: place for place, slug in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: (places.get(item[0], len(ORDER)), item[1]["time"], item[0])))


def timing(described: dict[str, Any] | None, run_dir: RunDir | None, events: list[Event]) -> dict[str, Any]:
    """Seconds per finished stage over all its attempts, the wall clock since the run's first event, and the cost where
    the machine is ours."""
    spent: dict[str, float] = {}
    for event in events:
        if event.stage and event.kind == "stage" and event.data.get("state") in ("finished", "failed", "stopped"):
            spent[event.stage] = spent.get(event.stage, 0.0) + float(event.data.get("seconds") or 0)
    stages = [{"id": step["id"], "title": step["title"], "seconds": spent[step["id"]]}
              for step in (described or {}).get("stages", [])
              if step["id"] in spent and run_dir and run_dir.done_mark(step["id"]).exists()]
    local = (described or {}).get("target") == "local"
    wall_clock, rate = time.time() - events[0].t if events else 0.0, _told_rate(described)
    rented = None if rate is None else rate * wall_clock / 3600
    return {"stages": stages, "cost_usd": 0.0 if local else rented, "usd_per_hour": rate, "wall_clock_s": wall_clock}


def _told_rate(described: dict[str, Any] | None) -> float | None:
    """What the machine costs per hour, where run.json says so."""
    rate = (described or {}).get("usd_per_hour")
    return float(rate) if isinstance(rate, (int, float)) and not isinstance(rate, bool) else None


def list_price(gpus: list[str]) -> float:
    """Dollars per hour of some GPUs at the list price of their kind; 0 without any."""
    return sum(next((price for part, price in _USD_PER_GPU_HOUR if part in name), _USD_PER_OTHER_GPU_HOUR)
               for name in gpus)


def environment(base: Path) -> dict[str, dict[str, Any]]:
    """Where this was made: git where the program runs from a checkout, the hardware, the software."""
    here = machine.facts(base)
    names = [gpu["name"] for gpu in here["gpus"]]
    memory = [gpu["mem_total_gb"] for gpu in here["gpus"] if gpu["mem_total_gb"]]
    rate = list_price(names)
    root = Path(__file__).parents[2]
    return {
        "Git Information": git_facts(root),
        "Hardware": {"Platform": f"{here['os']} {here['arch']}", "CPU": here["cpu"], "CPU cores": here["cores"],
                     "Memory": f"{here['mem_total_gb']:.1f} GB", "GPUs": _counted(names) or "none",
                     "GPU memory": f"{sum(memory):.1f} GB in all" if memory else None, "CUDA version": cuda_version(),
                     "Hourly rate at list price": f"${rate:.2f}/hour" if rate else None},
        "Software": {"llmconsole": here["software"], "Python": here["python"], "PyTorch": here["torch"]},
        "Bloat": code_size(root),
    }


def _counted(names: list[str]) -> str:
    """'8x NVIDIA H100 80GB HBM3', kind by kind."""
    return ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names))


def cuda_version() -> str | None:
    """The CUDA that the installed PyTorch was built for, read from its version file without importing it."""
    found = importlib.util.find_spec("torch")
    path = Path(found.origin).parent / "version.py" if found and found.origin else None
    try:
        told = re.search(r"^cuda[^=\n]*=\s*'([\d.]+)'", path.read_text(), re.MULTILINE) if path else None
    except OSError:
        return None
    return told[1] if told else None


def git_facts(root: Path) -> dict[str, str]:
    """Branch, commit with (clean) or (dirty), and message of the checkout at `root`; empty when it is none."""
    if shutil.which("git") is None or not (root / ".git").exists():
        return {}
    branch, commit, message, changes = (_git(root, *words) for words in (
        ("rev-parse", "--abbrev-ref", "HEAD"), ("rev-parse", "--short", "HEAD"), ("log", "-1", "--format=%s"),
        ("status", "--porcelain", "--untracked-files=no")))
    if commit is None or message is None:
        return {}
    return {"Branch": branch or "", "Commit": f"{commit} ({'dirty' if changes else 'clean'})", "Message": message[:80]}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, or None when this is not a checkout or git does not answer."""
    try:
        asked = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10,
                               check=False)
    except subprocess.TimeoutExpired:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _events(path: Path) -> list[Event]:
    """The run's events so far; a damaged line is no event."""
    if not path.exists():
        return []
    lines, _ = split_lines(path.read_bytes())
    return [event for event in map(parse_line, lines) if event is not None]


def _read(path: Path, context: StageContext) -> dict[str, Any] | None:
    """The JSON object in a file; None, and a warning, when it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
        problem = "not a JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    context.log(f"left out of the report: {path}: {problem}")
    context.events.alert("warning", "report-part", f"{path.name} is left out of the report: {problem}")
    return None


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is none becomes its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value

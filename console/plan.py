"""What a start would do, worked out before anything is done: stages, minutes, disk, paths, the same thing as a command.

The confirm sheet and `run start --dry-run` show a Plan; the operator carries exactly it out. Making one writes nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.errors import ConsoleError, Refused
from console.machines.targets import LOCAL, Target
from console.version import version
from engine import stage as stages
from engine.recipe import Recipe, find, to_run_json, with_overrides
from engine.rundir import base_dir, new_run_id, runs_dir, valid_run_id

if TYPE_CHECKING:
    from remote.host import Host

# Asked of the machine itself, so that a far one answers for itself too: free bytes where the folder would be, memory,
# and the kind of machine as recipes name it.
_PROBE = """
import json, os, shutil, sys
folder = sys.argv[1]
while not os.path.isdir(folder):
    folder = os.path.dirname(folder)
gpus = len([n for n in os.listdir('/dev') if n.startswith('nvidia') and n[6:].isdigit()])
mps = sys.platform == 'darwin' and os.uname().machine == 'arm64'
memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
kind = '8xh100' if gpus == 8 else 'gpu' if gpus else 'mps' if mps else 'cpu'
print(json.dumps({'free': shutil.disk_usage(folder).free, 'writable': os.access(folder, os.W_OK), 'memory': memory,
                  'kind': kind, 'cores': os.cpu_count()}))
"""


@dataclass(frozen=True)
class PlanStage:
    """One stage as it will run. `args` are the settings that the recipe or the person gave."""

    id: str
    stage: str
    title: str
    summary: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """`problems` forbid the start, each a sentence; `warnings` do not. `description` becomes run.json."""

    run: str
    recipe: str
    title: str
    summary: str
    target: str
    target_title: str
    machine: str  # cpu | mps | gpu | 8xh100
    stages: tuple[PlanStage, ...]
    minutes: float | None  # None: nobody has measured it on such a machine
    usd: float
    disk_needed: int  # bytes
    disk_free: int
    path: str
    cli: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    description: dict[str, Any]

    @property
    def ok(self) -> bool:
        return not self.problems


def make_plan(host: Host, recipe_name: str, target: Target, overrides: Mapping[str, Any], run_id: str | None,
              folders: Sequence[Path], running: Sequence[str]) -> Plan:
    """A plan for `recipe_name` on `target`. Raises ConfigError when the recipe or an override cannot be used.

    `folders` hold a person's own recipes; `running` are runs that are at work on the same machine now.
    """
    recipe = chosen_recipe(recipe_name, overrides, folders)
    base = runs_folder(target)
    run = run_id or _free_id(host, base, recipe.name)
    facts = _probe(host, f"{base}/{run}")
    plan = plan_for(recipe, run, target.name, target.title, f"{base}/{run}", facts,
                    cli_line(recipe_name, target.name, overrides))
    return replace(plan, problems=_problems(run, base, plan.disk_needed, facts),
                   warnings=_warnings(recipe.memory_gb, facts, running))


def chosen_recipe(name: str, overrides: Mapping[str, Any], folders: Sequence[Path]) -> Recipe:
    """A recipe with a person's changes. Raises ConfigError."""
    return with_overrides(find(name, folders), [f"{key}={value}" for key, value in overrides.items()])


def plan_for(recipe: Recipe, run: str, target: str, title: str, path: str, facts: Mapping[str, Any],
             cli: str) -> Plan:
    """A plan without a verdict; `facts` are the machine's `kind` and `free` bytes."""
    description = to_run_json(recipe, run, target=target, software=f"llmconsole {version()}")
    return Plan(run=run, recipe=recipe.name, title=recipe.title, summary=recipe.summary, target=target,
                target_title=title, machine=facts["kind"], stages=_stages(description),
                minutes=recipe.minutes.get(facts["kind"]), usd=0.0, disk_needed=int((recipe.disk_gb or 0) * 1e9),
                disk_free=int(facts["free"]), path=path, cli=cli, problems=(), warnings=(), description=description)


def runs_folder(target: Target) -> str:
    """Where runs lie on a machine, as a path there. Raises Refused for a machine that was not prepared yet."""
    if target.name == LOCAL:
        return str(runs_dir(base_dir()))
    if not target.base or not target.python:
        raise Refused(f"{target.title} is not prepared yet, so nothing can run there",
                      f"llmconsole target up {target.name}")
    return f"{target.base}/runs"


def _free_id(host: Host, base: str, recipe: str) -> str:
    """A new id by the clock; a second start within the same second gets a number."""
    first = run = new_run_id(recipe)
    number = 1
    while host.stat(f"{base}/{run}") is not None:
        number += 1
        run = f"{first}-{number}"
    return run


def _probe(host: Host, path: str) -> dict[str, Any]:
    done = host.run([*host.python, "-I", "-S", "-c", _PROBE, path])
    if done.rc != 0:
        raise ConsoleError(f"{host.name} does not answer as it should: {done.err.decode('utf-8', 'replace')[-300:]}")
    return json.loads(done.out)


def _stages(description: Mapping[str, Any]) -> tuple[PlanStage, ...]:
    return tuple(PlanStage(row["id"], row["stage"], row["title"], stages.find(row["stage"]).summary, row["args"])
                 for row in description["stages"])


def _problems(run: str, base: str, needed: int, facts: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if not valid_run_id(run):
        found.append(f"{run!r} cannot be a run's id: use letters, digits, '.', '_' and '-', at most 80")
    if facts["free"] < needed:
        found.append(f"the run needs about {gigabytes(needed)} of disk and {base} has {gigabytes(facts['free'])} free, "
                     "so it would stop half way; free some space or point NANOCHAT_BASE_DIR to a larger disk")
    if not facts["writable"]:
        found.append(f"{base} cannot be written, and everything that a run makes goes there; point NANOCHAT_BASE_DIR "
                     "to a folder of yours")
    return tuple(found)


def _warnings(memory_gb: float | None, facts: Mapping[str, Any], running: Sequence[str]) -> tuple[str, ...]:
    found = []
    if memory_gb and facts["memory"] < memory_gb * 1e9:
        found.append(f"the run wants about {memory_gb:g} GB of memory and the machine has {gigabytes(facts['memory'])}")
    if running:
        found.append(f"{', '.join(running)} runs on the same machine, so both will be slower")
    return tuple(found)


def cli_line(recipe: str, target: str, overrides: Mapping[str, Any]) -> str:
    """The command that does the same."""
    words = ["llmconsole", "run", "start", recipe]
    if target != "local":
        words += ["--target", target]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

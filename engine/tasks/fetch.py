"""`python -m engine fetch NAME ...`: get the data of tasks, mixtures and evaluations ahead of time, or for a machine
without a network. Without names it lists what there is and what is already here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.config import ConfigError, nearest
from engine.context import StageError
from engine.rundir import base_dir, shared_base
from engine.tasks import mixture, table
from engine.tasks.hub_parquet import FOLDER, HubSplit, download, local_files

BENCHMARKS, BUNDLE = "benchmarks", "eval_bundle"


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 all is here, 1 something could not be fetched. Raises ConfigError for an unknown name."""
    base = shared_base(base_dir())
    if not argv:
        print("\n".join(listing(base)))
        return 0
    jobs = [job for name in argv for job in wanted(name, base)]
    failed = 0
    for job in jobs:
        try:
            job()
        except StageError as error:  # noqa: PERF203 - one that fails must not keep the others
            failed += 1
            print(f"{error}\n  {error.next}", file=sys.stderr)
    print(f"{len(jobs) - failed} of {len(jobs)} are in {base}")
    return 1 if failed else 0


def wanted(name: str, base: Path) -> list[Callable[[], object]]:
    """What has to be done for a task, a mixture, `benchmarks` or `eval_bundle`. Raises ConfigError."""
    if name == BUNDLE:
        from engine.evals.eval_bundle import find_bundle

        return [lambda: find_bundle(base)]
    if name == BENCHMARKS:
        return [job for task in table.CHATCORE for job in _task(task, "test", base)]
    if name in mixture.NAMED:
        return [job for item, split in mixture.items_of(name) for job in _task(_name(item), split, base)]
    known = [*table.TASKS, *mixture.NAMED, BENCHMARKS, BUNDLE]
    if name.lower() not in {task.lower() for task in table.TASKS}:
        raise ConfigError(f"nothing called {name!r} can be fetched{nearest(name, known)}")
    spec = table.find(name)
    return [job for split in (spec.splits or {"train": ""}) for job in _task(spec.name, split, base)]


def _name(item: str) -> str:
    return item.partition("*")[0].partition(":")[0]


def _task(name: str, split: str, base: Path) -> list[Callable[[], object]]:
    spec = table.find(name)
    if spec.hub is not None:
        place = HubSplit(spec.repo, spec.subset, spec.splits[split], spec.gate)
        return [lambda: local_files(place, base) or download(place, base)]
    if "Spelling" in name:
        from engine.tasks.spelling import words

        return [lambda: words(base)]
    return []


def listing(base: Path) -> Iterator[str]:
    """Every name that can be fetched, what it is, and whether it is here."""
    yield f"Data of tasks, in {base / FOLDER}. Fetch with: python -m engine fetch NAME ...\n"
    for spec in table.TASKS.values():
        here = [ours for ours, theirs in spec.splits.items()
                if local_files(HubSplit(spec.repo, spec.subset, theirs), base)]
        state = f"here: {', '.join(here)}" if here else "not here" if spec.repo else "made on the fly"
        gate = "  (needs a token)" if spec.gate else ""
        yield f"  {spec.name:<24}{spec.summary:<48}{spec.repo or '-':<44}{state}{gate}"
    yield "\nMixtures, for --mixture of mid_train and chat_sft:\n"
    yield from (f"  {name:<24}{entry.summary}" for name, entry in mixture.NAMED.items())
    yield f"\nEvaluations:\n\n  {BENCHMARKS:<24}the test splits behind ChatCORE: {', '.join(table.CHATCORE)}"
    bundle = "here" if (base / BUNDLE / "core.yaml").is_file() else "not here"
    yield f"  {BUNDLE:<24}{'the 22 tasks of CORE':<92}{bundle}"

"""kill -9 at every call that changes something, of every process of a run's life; then the next start must heal it.

    python tests/bench/drill_kills.py [SCENARIO ...] [--points N] [--jobs 2]

Scenarios: console (plan, start, follow, stop, resume to the end: console, launcher, keeper, command), follower,
launcher, stop, supervisor (the real pipeline with three small stages), evening (a rented life against the double of
the provider; slow, only by name). `--points` spreads so many over all that there are. One line per process: how many
points, how many of them were killed, and what went wrong; the exit code is 1 when anything did.

After each kill: every row of the run log once and as in the event file, and equal to the rows of a life that nobody
killed where the life is the same; each attempt of each stage begun at most once; every state file whole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import kill_points
from drill_lives import BY_NAME_ONLY, SCENARIOS, Launching, Scenario  # noqa: F401 - Launching: for a worse one
from kill_points import Trace


def life_of(name: str) -> type[Scenario]:
    return {**SCENARIOS, **BY_NAME_ONLY}[name]


def fresh(name: str, where: Path) -> Scenario:
    return life_of(name)(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=where)))


def unkilled(name: str, where: Path) -> tuple[Trace, Any]:
    """The calls of a life that nobody kills, and what is there at its end."""
    life = fresh(name, where)
    trace = kill_points.run(life.work)
    rows = life.heal("")
    life.close()
    shutil.rmtree(life.folder)
    trace.calls = trace.calls[:len(life.roles)]
    return trace, rows


def kill(name: str, where: Path, at: tuple[int, int], expected: Any) -> tuple[str, str]:
    """One life killed at one point and healed: ("killed" | "not reached" | "WRONG", what was wrong)."""
    life, wrong, trace = fresh(name, where), "", Trace()
    try:
        trace = kill_points.run(life.work, at)
        rows = life.heal(life.roles[at[0]] if trace.killed else "")
        if rows is not None and rows != expected:
            wrong = f"other rows than without the kill: {_difference(rows, expected)}"
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        wrong = traceback.format_exc()
    finally:
        life.close()
    if not wrong:
        shutil.rmtree(life.folder, ignore_errors=True)
    return ("WRONG", f"{life.folder}\n{wrong}") if wrong else ("killed" if trace.killed else "not reached", "")


def _difference(rows: Any, expected: Any) -> str:
    pairs = [(a, b) for a, b in zip(map(str, rows), map(str, expected), strict=True) if a != b]
    return str(pairs)[:500]


def spread(points: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """`count` of them at even distances, the first and the last among them."""
    if count >= len(points):
        return points
    return [points[round(i * (len(points) - 1) / max(count - 1, 1))] for i in range(count)]


Found = tuple[str, int, Counter[str], list[str]]


def drill(name: str, where: Path, count: int = 1 << 30,
          each: Callable[[Callable[..., Any], list[Any]], list[Any]] | None = None) -> list[Found]:
    """(process, points that it has, outcomes, what went wrong) for each process of a scenario."""
    trace, expected = unkilled(name, where)
    chosen = spread(trace.points, count)
    work = [(name, where, at, expected) for at in chosen]
    outcomes = each(kill, work) if each else [kill(*words) for words in work]
    found = []
    for process, role in enumerate(life_of(name).roles):
        mine = [(at, outcome) for at, outcome in zip(chosen, outcomes, strict=True) if at[0] == process]
        wrong = [f"{name}/{role} at call {at[1]} ({trace.calls[process][at[1]]}): {text}"
                 for at, (word, text) in mine if word == "WRONG"]
        found.append((role, len(trace.calls[process]) if process < len(trace.calls) else 0,
                      Counter(outcome[0] for _, outcome in mine), wrong))
    return found


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("scenario", nargs="*", choices=[*SCENARIOS, *BY_NAME_ONLY, []], default=[])
    words.add_argument("--points", type=int, default=1 << 30)
    words.add_argument("--jobs", type=int, default=2)
    args = words.parse_args()
    if not kill_points.allowed():
        print("this machine does not let a process trace its children")
        return 2
    names, total, failed = args.scenario or list(SCENARIOS), Counter[str](), 0
    where = Path(tempfile.mkdtemp(prefix="drill-kills-"))
    with multiprocessing.Pool(args.jobs, maxtasksperchild=200) as pool:
        for name in names:
            begun = time.monotonic()
            for role, points, outcomes, wrong in drill(
                    name, where, args.points // len(names), lambda call, rows: pool.starmap(call, rows, chunksize=1)):
                print(f"{name:<11}{role:<22}{points:4} points: {dict(outcomes)}", flush=True)
                total += outcomes
                failed += len(wrong)
                for text in wrong[:5]:
                    print(text, file=sys.stderr, flush=True)
            print(f"{name:<11}{time.monotonic() - begun:.1f} s", flush=True)
    print(f"in all: {dict(total)}, wrong: {failed}")
    if not failed:
        shutil.rmtree(where)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

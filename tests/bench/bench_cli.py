"""How long the headless verbs take from the shell's point of view, process start included.

    python tests/bench/bench_cli.py

Prints one JSON line per verb; the exit code is 1 when a verb with a limit is above it (median of 15).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
VERBS: tuple[tuple[tuple[str, ...], float | None], ...] = (
    (("--help",), 100.0), (("status", "--offline"), None), (("run", "list"), None), (("recipe", "list"), None))


def main() -> int:
    found = shutil.which("llmconsole", path=str(Path(sys.executable).parent)) or shutil.which("llmconsole")
    command = [found] if found else [sys.executable, "-m", "console"]
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "LLMCONSOLE_HOME": f"{folder}/home", "NANOCHAT_BASE_DIR": f"{folder}/base"}
        for words, limit in VERBS:
            times = [_once([*command, *words], env) for _ in range(ROUNDS + 1)][1:]  # the first one warms the disk
            median = statistics.median(times)
            slow |= limit is not None and median > limit
            print(json.dumps({"bench": "cli", "verb": " ".join(words), "median_ms": round(median, 1),
                              "best_ms": round(min(times), 1), "limit_ms": limit}))
    return int(slow)


def _once(argv: list[str], env: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, env=env, check=True, capture_output=True)
    return (time.perf_counter() - begun) * 1e3


if __name__ == "__main__":
    sys.exit(main())

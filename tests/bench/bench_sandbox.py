"""Milliseconds per judged program: our sandbox beside a fresh bare interpreter per program (no isolation at all).

    python tests/bench/bench_sandbox.py [rounds]

Both run the same 164 problems, interleaved. The bare interpreter is what one would use without a sandbox.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engine" / "sandbox")]

from problems import problems  # noqa: E402

from engine.sandbox.sandbox import Sandbox  # noqa: E402


def main(rounds: int = 1) -> None:
    ours, bare, passed = [], [], 0
    rows = problems()
    begin = time.perf_counter()
    with Sandbox() as box:
        print(f"start and proof of isolation: {1e3 * (time.perf_counter() - begin):.0f} ms ({box.walls})")
        for row in rows * rounds:
            code = row["prompt"] + row["canonical_solution"]
            begin = time.perf_counter()
            passed += box.judge(code, row["entry_point"], row["test"], prelude=row["prompt"]).passed
            middle = time.perf_counter()
            script = f"{code}\n{row['test']}\ncheck({row['entry_point']})\n"
            subprocess.run([sys.executable, "-I", "-S", "-B", "-c", script], check=False, capture_output=True)
            ours.append(middle - begin)
            bare.append(time.perf_counter() - middle)
    a, b = sorted(ours), sorted(bare)
    print(f"{passed}/{len(ours)} canonical solutions pass")
    print(f"sandbox          median {1e3 * median(a):6.2f} ms   p95 {1e3 * a[int(len(a) * 0.95)]:6.2f} ms")
    print(f"bare interpreter median {1e3 * median(b):6.2f} ms   p95 {1e3 * b[int(len(b) * 0.95)]:6.2f} ms")
    print(f"ratio {median(b) / median(a):.1f}x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

"""One metric with 1,000,000 points: how long a chart's refresh takes after the first read.

    python tests/bench/bench_series.py

Prints one JSON line; the exit code is 1 when refresh and points together take more than 5 ms (median of 50).
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from console.runlog import apply, migrations
from console.runlog.db import open_writer, transaction
from console.runlog.queries import Queries
from console.runlog.series import Series

POINTS, WIDTH, ROUNDS, LIMIT_MS = 1_000_000, 240, 50, 5.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runlog.db"
        connection = open_writer(path, synchronous="NORMAL")
        migrations.migrate(connection, path, migrations.RUNLOG)
        stages = [{"id": "01-base_train", "stage": "base_train", "title": "Base", "args": {}}]
        run = apply.describe(connection, "r", "local", "/r", {"recipe": "tiny", "created": 1.0, "stages": stages})
        with transaction(connection):
            connection.execute("INSERT INTO sources VALUES (?, 1, 0, 1, 0)", (run,))
            connection.execute("INSERT INTO series (run, stage, name, source) "
                               "VALUES (?, '01-base_train', 'loss', 'metric')", (run,))
            connection.executemany("INSERT INTO points VALUES (1, ?, 1, ?, ?, ?)", map(_row, range(POINTS)))
        queries = Queries(path)
        series = Series(queries, "r", "01-base_train", "loss")
        begun = time.perf_counter()
        series.refresh()
        first_ms = (time.perf_counter() - begun) * 1e3
        times = []
        for extra in range(ROUNDS):
            connection.execute("INSERT INTO points VALUES (1, ?, 1, ?, ?, ?)", _row(POINTS + extra))
            begun = time.perf_counter()
            series.refresh()
            series.points(WIDTH)
            times.append((time.perf_counter() - begun) * 1e3)
        queries.close()
        connection.close()
    median = statistics.median(times)
    print(json.dumps({"bench": "series", "points": POINTS, "width": WIDTH, "first_read_ms": round(first_ms, 1),
                      "refresh_ms": round(median, 3), "worst_ms": round(max(times), 3), "limit_ms": LIMIT_MS}))
    return int(median > LIMIT_MS)


def _row(step: int) -> tuple[int, int, float, float]:
    return step * 100, step, step / 10, 2.0 + math.sin(step / 1000)


if __name__ == "__main__":
    sys.exit(main())

"""Rows that are not ours beside the run log, and ours in a file that other programs open.

sqlite-utils makes the tables from whatever the rows hold: names, types, rows of unlike shapes. It takes a third of a
second to import, so that happens here and only when a file is read or written; what every event passes through stays
plain sqlite3 (`console.runlog`).
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from console.errors import Refused, UsageProblem

if TYPE_CHECKING:
    from console.paths import Home
    from console.runlog.queries import Queries

_TABLES = {
    "runs": "SELECT id, target, recipe, title, created, software, attempt, reported, started, ended, exit_code, reason "
            "FROM runs WHERE id = ?",
    "stages": "SELECT stages.* FROM stages JOIN runs ON runs.key = stages.run WHERE runs.id = ?",
    "metrics": "SELECT stage, name, attempt, step, t, value FROM metrics WHERE run = ?",
    "events": "SELECT events.* FROM events JOIN runs ON runs.key = events.run WHERE runs.id = ?",
    "checkpoints": "SELECT checkpoints.* FROM checkpoints JOIN runs ON runs.key = checkpoints.run WHERE runs.id = ?",
}


def beside(home: Home, files: Sequence[Path]) -> sqlite3.Connection:
    """A connection that reads the run log, the ledger and one table per file (CSV, TSV, JSON or JSON lines).

    Raises UsageProblem for a file that holds no rows.
    """
    import sqlite_utils
    from sqlite_utils.utils import Format, TypeTracker, rows_from_file

    formats = {".csv": Format.CSV, ".tsv": Format.TSV, ".json": Format.JSON, ".jsonl": Format.NL, ".ndjson": Format.NL}

    connection = sqlite3.connect(":memory:", uri=True, isolation_level=None)
    memory = sqlite_utils.Database(connection)
    for file in files:
        tracker = TypeTracker()
        try:
            with file.open("rb") as f:
                rows, _ = rows_from_file(f, formats.get(file.suffix.lower()))
                table = memory.table(table_name(file))
                table.insert_all(tracker.wrap(rows), alter=True)
            table.transform(types=tracker.types)  # "2.5" of a CSV is a number
        except (ValueError, csv.Error, sqlite3.Error, AssertionError, AttributeError) as error:
            connection.close()
            raise UsageProblem(f"{file} holds no rows: {error}",
                               "CSV or TSV with a header, JSON, or JSON lines") from None
    for name, path in (("runlog", home.runlog), ("ledger", home.ledger)):
        connection.execute(f"ATTACH ? AS {name}", (f"file:{quote(str(path))}?mode=ro",))
    connection.execute("PRAGMA query_only=ON")
    return connection


def table_name(file: Path) -> str:
    """`bench-2.csv` is the table bench_2."""
    return re.sub(r"\W+", "_", file.stem).strip("_") or "rows"


def export(queries: Queries, run: str, to: Path) -> dict[str, int]:
    """Write all that the log has of a run into a new SQLite file with plain tables; how many rows of each.

    Raises Refused where there is a file already.
    """
    import sqlite_utils

    if to.exists():
        raise Refused(f"{to} is there already, so nothing was written", "choose another name")
    database = sqlite_utils.Database(to)
    try:
        with database.conn:
            return {name: _copy(queries, sql, run, database.table(name)) for name, sql in _TABLES.items()}
    finally:
        database.close()


def _copy(queries: Queries, sql: str, run: str, table: Any) -> int:
    cursor = queries.connection().execute(sql, (run,))
    names = [column[0] for column in cursor.description]
    table.insert_all(dict(zip(names, row, strict=True)) for row in cursor)
    return int(table.count) if table.exists() else 0

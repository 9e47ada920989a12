"""`query`: SQL over the run log, for questions that no screen asks. However it is written, it changes nothing."""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from console.cli.amounts import Amount
from console.cli.output import emit_json, emit_json_line, json_option, line, note
from console.cli.workspace import fresh_workspace
from console.errors import ConsoleError, UsageProblem
from console.exit_codes import Exit
from console.paths import Home
from console.runlog.db import open_reader

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_STEPS_BETWEEN_LOOKS = 10_000


class _TookTooLong(ConsoleError):
    exit = Exit.TIMEOUT


@click.command()
@click.argument("sql")
@json_option
@click.option("--jsonl", is_flag=True, help="Print one JSON object per row.")
@click.option("--timeout", type=Amount(), default=30.0, show_default=True, help="Seconds until it is given up.")
@click.option("--with", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Rows of yours as one more table, named after the file: CSV, TSV, JSON, JSON lines; repeatable.")
@click.pass_context
def query(ctx: click.Context, sql: str, as_json: bool, jsonl: bool, timeout: float, files: tuple[Path, ...]) -> None:
    """Read the run log with SQL; `-` reads the statement from stdin.

    Tables: runs, stages, events, series, points, checkpoints; ledger.intents, ledger.attempts; and the view metrics
    (run, stage, name, attempt, step, t, value). Without --json rows are printed as tab-separated values.
    """
    if sql == "-":
        sql = sys.stdin.read()
    with fresh_workspace(ctx) as workspace:
        connection = _open(workspace.home, files)
        try:
            _print(_execute(connection, sql, timeout), as_json, jsonl)
        finally:
            connection.close()


def _open(home: Home, files: tuple[Path, ...]) -> sqlite3.Connection:
    if files:
        from console.foreign_rows import beside

        return beside(home, files)
    connection = open_reader(home.runlog)
    connection.execute("ATTACH ? AS ledger", (f"file:{quote(str(home.ledger))}?mode=ro",))
    return connection


def _execute(connection: sqlite3.Connection, sql: str, timeout: float) -> sqlite3.Cursor:
    """Run one statement that can only read."""
    deadline = time.monotonic() + timeout
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
    try:
        cursor = connection.execute(sql)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _cause(error, timeout) from None
    if cursor.description is None:
        raise UsageProblem("that is not a question: only SELECT gives rows, and nothing here may be changed")
    return cursor


def _cause(error: Exception, timeout: float) -> ConsoleError:
    if "interrupted" in str(error):
        return _TookTooLong(f"the query was given up after {timeout:g} s", "ask for less, or give it --timeout")
    if "not authorized" in str(error) or "readonly" in str(error) or "prohibited" in str(error):
        return UsageProblem(f"refused, because query only reads: {error}")
    return UsageProblem(f"SQL: {error}", "llmconsole query \"SELECT name, sql FROM sqlite_master\" shows the tables")


def _print(cursor: sqlite3.Cursor, as_json: bool, jsonl: bool) -> None:
    names = [column[0] for column in cursor.description]
    try:
        if as_json:
            emit_json({"columns": names, "rows": [[_value(v) for v in row] for row in cursor]})
        elif jsonl:
            for row in cursor:
                emit_json_line(dict(zip(names, map(_value, row), strict=True)))
        else:
            line("\t".join(names))
            count = 0
            for count, row in enumerate(cursor, 1):  # noqa: B007 - the count is reported below
                line("\t".join(_text(value) for value in row))
            note(f"{count} row{'' if count == 1 else 's'}")
    except sqlite3.OperationalError as error:
        raise _cause(error, 0.0) from None


def _value(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return "" if value is None else str(_value(value)).replace("\t", " ").replace("\n", " ")

"""Both databases come from their first schema to the newest, with rows in them, or are left alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from console.errors import UsageProblem
from console.runlog import migrations
from console.runlog.db import damage, open_reader, open_writer, transaction


def add_colour(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'green'")


def break_half_way(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs ADD COLUMN half TEXT")
    raise RuntimeError("power cut")


def open_at_version_1(path: Path) -> sqlite3.Connection:
    connection = open_writer(path, synchronous="NORMAL")
    migrations.migrate(connection, path, (migrations.runlog_001_initial,))
    connection.execute("INSERT INTO runs (id, target, path, recipe, title, created, software, description) "
                       "VALUES ('r', 'local', '/x', 'tiny', 'Tiny', 1, '', '{}')")
    return connection


@pytest.mark.parametrize("steps", [migrations.RUNLOG, migrations.LEDGER])
def test_an_empty_file_gets_every_step_once(tmp_path: Path, steps: tuple[migrations.Step, ...]) -> None:
    connection = open_writer(tmp_path / "x.db", synchronous="FULL")
    assert migrations.migrate(connection, tmp_path / "x.db", steps) == len(steps)
    assert migrations.migrate(connection, tmp_path / "x.db", steps) == 0
    assert connection.execute("PRAGMA user_version").fetchone() == (len(steps),)


def test_rows_of_the_first_schema_survive_and_a_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "runlog.db"
    connection = open_at_version_1(path)
    assert migrations.migrate(connection, path, (migrations.runlog_001_initial, add_colour)) == 1
    assert connection.execute("SELECT id, colour FROM runs").fetchall() == [("r", "green")]
    copy = open_reader(tmp_path / "runlog.db.v1.bak")
    assert copy.execute("SELECT id FROM runs").fetchall() == [("r",)]
    assert copy.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "runlog.db"
    connection = open_at_version_1(path)
    with pytest.raises(RuntimeError):
        migrations.migrate(connection, path, (migrations.runlog_001_initial, break_half_way))
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert "half" not in [row[1] for row in connection.execute("PRAGMA table_info(runs)")]


def test_a_newer_file_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "runlog.db"
    connection = open_at_version_1(path)
    connection.execute("PRAGMA user_version=99")
    with pytest.raises(UsageProblem, match="newer llmconsole"):
        migrations.migrate(connection, path, migrations.RUNLOG)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    open_at_version_1(tmp_path / "runlog.db")
    reader = open_reader(tmp_path / "runlog.db")
    for sql in ("DELETE FROM runs", "CREATE TABLE x (y)", "PRAGMA user_version=5"):
        with pytest.raises(sqlite3.OperationalError):
            reader.execute(sql)


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    connection = open_at_version_1(tmp_path / "runlog.db")
    with pytest.raises(KeyError), transaction(connection):
        connection.execute("DELETE FROM runs")
        raise KeyError
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "runlog.db"
    connection = open_at_version_1(path)
    rows = [(f"r{i}", "/x" * 200) for i in range(200)]
    connection.executemany("INSERT INTO runs (id, target, path, recipe, title, created, software, description) "
                           "VALUES (?, 'local', ?, 'tiny', 'Tiny', 1, '', '{}')", rows)
    connection.close()
    assert damage(path, thorough=True) == ""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    assert damage(path, thorough=True)
    path.write_bytes(b"not a database at all" * 100)
    assert damage(path, thorough=False)


def test_closing_under_a_read_of_another_thread_ends_the_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_writer(path, synchronous="NORMAL").close()
    script = (
        "import sqlite3, sys, threading, time\nfrom pathlib import Path\nfrom console.runlog.db import Readers\n"
        "readers, ended = Readers(Path(sys.argv[1])), []\n"
        "long = 'WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(x) FROM n'\n"
        "def read():\n"
        "    try:\n        readers.get().execute(long)\n"
        "    except sqlite3.OperationalError as error:\n        ended.append(str(error))\n"
        "threads = [threading.Thread(target=read) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\ntime.sleep(0.3)\nreaders.close()\n"
        "[thread.join(20) for thread in threads]\nprint(ended)\n")
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2], check=False)
    assert (done.returncode, done.stdout) == (0, f"{['interrupted'] * 4}\n"), done.stderr

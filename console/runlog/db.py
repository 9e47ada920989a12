"""Opening SQLite files the one way this product opens them.

One writer in one process, WAL, BEGIN IMMEDIATE; any number of readers that cannot write. Which tables there are is
`console.runlog.migrations`' business.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

BUSY_TIMEOUT_S = 5.0


def open_writer(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """A read-write connection in autocommit mode; `synchronous` is NORMAL (rebuildable) or FULL (precious).

    The caller guards it with a lock: it may be used from several threads, by one at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot change the file, whatever is executed on it. Raises OperationalError without a file."""
    connection = _connect(path, "ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if "readonly" not in str(error):
            raise
        _roll_back(path)
        connection = _connect(path, "ro")
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _roll_back(path: Path) -> None:
    """A writer was killed in the middle: any connection that may write takes back what it had not committed."""
    connection = _connect(path, "rw")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing. Takes the write lock at once, because upgrading a read lock later may fail without waiting."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        with suppress(sqlite3.OperationalError):  # disk full: SQLite has rolled back by itself already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def damage(path: Path, *, thorough: bool) -> str:
    """What is wrong with the file at `path`, or '' when nothing is; `thorough` reads every page.

    Raises OperationalError when it cannot be read now (a full disk, no permission): that is no fault of the file.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if thorough:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            return "" if found == ["ok"] else found[0]
        return ""
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return ""
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


class Readers:
    """One read-only connection per thread to the same file, so that screens' workers never wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._guard = threading.Lock()

    def get(self) -> sqlite3.Connection:
        """This thread's connection, opened on first use."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reader(self._path)
            with self._guard:
                self._all.append((threading.current_thread(), connection))
        return connection

    def close(self) -> None:
        """Let every connection go. One that a living thread may be reading with is only interrupted, because closing
        it under a read would crash the process: its read fails with OperationalError, and it goes with its last use."""
        with self._guard:
            for owner, connection in self._all:
                if owner is threading.current_thread() or not owner.is_alive():
                    connection.close()
                else:
                    connection.interrupt()
            self._all.clear()
        self._local = threading.local()

"""What a host remembers between runs: small SQLite files in the cache, that any run may lose without harm."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

BUSY_SECONDS = 30.0
"""How long a run waits for another's write."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Database:
    """A connection that is given up at the first trouble, which costs what it remembers and nothing else.

    To be used by one thread.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._path = path

    def tried(self, action: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """What the action gives; None where the database was given up."""
        if self._connection is None:
            return None
        try:
            return action(self._connection)
        except sqlite3.Error as cause:
            self._connection = None
            log.warning("database.given_up path=%s cause=%s", self._path, cause)
            if not isinstance(cause, sqlite3.OperationalError):
                self._path.unlink(missing_ok=True)  # damaged: the next run begins it anew
            return None


@contextmanager
def opened(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """The database at `path`, with the tables of `schema` (SQL that may be run again).

    A damaged file is begun anew. Where it cannot be written (a read-only mount, a full disk) an empty one in memory
    stands in: everything is then looked at again, and nothing is remembered.
    """
    connection = _connected(path, schema)
    try:
        yield connection
    finally:
        connection.close()


def _connected(path: Path, schema: str) -> sqlite3.Connection:
    try:
        return _open(str(path), schema)
    except sqlite3.OperationalError as cause:  # read-only, full, locked for too long
        log.warning("database.not_used path=%s cause=%s", path, cause)
    except sqlite3.DatabaseError as cause:
        log.warning("database.damaged path=%s cause=%s. It is begun anew.", path, cause)
        path.unlink(missing_ok=True)
        return _connected(path, schema)
    return _open(":memory:", schema)


def _open(where: str, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(where, timeout=BUSY_SECONDS)
    try:
        # Not a write-ahead log: one file, that a read-only mount can show too. Losing the last seconds in a power cut
        # costs looking at some files again.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(schema)
        connection.execute("PRAGMA user_version = 0")  # a write, so that a read-only file is found here
    except BaseException:
        connection.close()
        raise
    return connection

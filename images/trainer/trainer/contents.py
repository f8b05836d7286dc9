"""What the host remembers of the files in its cache: which bytes were verified, and when each was last used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trainer import database
from trainer.database import Database

NAME = "contents.db"

SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (
    md5 TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    verified_at REAL NOT NULL, used_at REAL NOT NULL
) WITHOUT ROWID;
"""


class Stamp(NamedTuple):
    """What tells a file apart from the same file after a change. Not its ctime, which every new link to it moves."""

    size: int
    mtime_ns: int
    inode: int


class Contents:
    """The rows of the database, by md5; times in seconds since the epoch. To be used by one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verified(self, md5s: Iterable[str]) -> dict[str, tuple[Stamp, float]]:
        """The stamp with which each of these was verified, and when; only those that are known."""
        asked = json.dumps(list(md5s))
        question = (
            "SELECT md5, size, mtime_ns, inode, verified_at FROM contents WHERE md5 IN (SELECT value FROM json_each(?))"
        )
        rows = self._database.tried(lambda connection: connection.execute(question, [asked]).fetchall()) or []
        return {md5: (Stamp(size, mtime_ns, inode), at) for md5, size, mtime_ns, inode, at in rows}

    def note(self, stamps: Iterable[tuple[str, Stamp]], now: float) -> None:
        """These were verified just now."""
        rows = [(md5, *stamp, now, now) for md5, stamp in stamps]
        if rows:
            self._write("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", rows)

    def use(self, md5s: Iterable[str], now: float) -> None:
        """These are used by a run that begins now."""
        question = "UPDATE contents SET used_at = ? WHERE md5 IN (SELECT value FROM json_each(?))"
        self._write(question, [(now, json.dumps(list(md5s)))])

    def used(self) -> dict[str, float]:
        """When each content that is known was last used."""
        return dict(
            self._database.tried(lambda connection: connection.execute("SELECT md5, used_at FROM contents").fetchall())
            or []
        )

    def forget(self, md5s: Iterable[str]) -> None:
        """These are gone."""
        self._write("DELETE FROM contents WHERE md5 IN (SELECT value FROM json_each(?))", [(json.dumps(list(md5s)),)])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(statement, rows)

        self._database.tried(write)


@contextmanager
def opened(root: Path) -> Iterator[Contents]:
    """What is remembered of the cache at `root`."""
    path = root / NAME
    with database.opened(path, SCHEMA) as connection:
        yield Contents(Database(connection, path))

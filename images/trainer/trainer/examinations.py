"""What this host knows of the pictures it has decoded, by md5: they are decoded once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

from trainer import database, pictures
from trainer.database import Database
from trainer.pictures import Examined, Format

KEEP_SECONDS = 2.0
"""How long an examination waits to be written with others: what a killed run loses."""
ASKED_AT_ONCE = 5_000
KEPT_RULES = 4
"""Of so many sets of rules the examinations are kept, the last used ones: trainer variants take turns on a host."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS rules (id INTEGER PRIMARY KEY, words TEXT NOT NULL UNIQUE, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    rules INTEGER NOT NULL, md5 BLOB NOT NULL,
    suffix TEXT, whole INTEGER, width INTEGER, height INTEGER, cause TEXT,
    PRIMARY KEY (rules, md5)
) WITHOUT ROWID;
"""


class Examinations:
    """Outcomes by md5: an `Examined`, or in words why the file cannot be trained on. To be used by one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[str, Examined | str]] = []
        self._written = time.monotonic()
        self._rules = self._database.tried(_use_rules) or 0

    def recall(self, md5s: Iterable[str]) -> tuple[dict[str, Examined], dict[str, str]]:
        """What is known of these contents: the good ones, and the causes of the bad."""
        good: dict[str, Examined] = {}
        causes: dict[str, str] = {}

        def ask(connection: sqlite3.Connection) -> None:
            asked = iter(md5s)
            while some := list(islice(asked, ASKED_AT_ONCE)):
                names = {_key(md5): md5 for md5 in some}
                for key, cause, *rest in connection.execute(_question(len(names)), [self._rules, *names]):
                    if cause is None:
                        good[names[key]] = _examined(*rest)
                    else:
                        causes[names[key]] = cause

        self._database.tried(ask)
        return good, causes

    def note(self, md5: str, outcome: Examined | str) -> None:
        """Remember an outcome; it is written some seconds later, with others."""
        self._waiting.append((md5, outcome))
        if time.monotonic() - self._written >= KEEP_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        rows = [(self._rules, _key(md5), *_columns(outcome)) for md5, outcome in self._waiting]
        self._waiting.clear()

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

        if rows:
            self._database.tried(insert)
        self._written = time.monotonic()


@contextmanager
def opened(path: Path) -> Iterator[Examinations]:
    """The examinations in the database at `path`; what the block has noted is written, however it ends."""
    with database.opened(path, SCHEMA) as connection:
        examinations = Examinations(Database(connection, path))
        try:
            yield examinations
        finally:
            examinations.write()


def _use_rules(connection: sqlite3.Connection) -> int:
    with connection:
        connection.execute(
            "INSERT INTO rules (words, used) VALUES (?1, ?2) ON CONFLICT (words) DO UPDATE SET used = ?2",
            (pictures.RULES, time.time()),
        )
        for old in connection.execute(
            "SELECT id FROM rules ORDER BY used DESC LIMIT -1 OFFSET ?", (KEPT_RULES,)
        ).fetchall():
            connection.execute("DELETE FROM pictures WHERE rules = ?", old)
            connection.execute("DELETE FROM rules WHERE id = ?", old)
    [(number,)] = connection.execute("SELECT id FROM rules WHERE words = ?", (pictures.RULES,))
    return int(number)


@cache
def _question(contents: int) -> str:
    marks = ", ".join("?" * contents)
    return f"SELECT md5, cause, suffix, whole, width, height FROM pictures WHERE rules = ? AND md5 IN ({marks})"  # noqa: S608


@cache
def _examined(suffix: str, whole: int, width: int, height: int) -> Examined:
    """One object for all pictures that are alike: a million are kept in memory."""
    return Examined(Format(suffix, bool(whole)), width, height)


def _columns(outcome: Examined | str) -> tuple[str | int | None, ...]:
    if isinstance(outcome, str):
        return None, None, None, None, outcome
    return outcome.format.suffix, int(outcome.format.whole), outcome.width, outcome.height, None


def _key(md5: str) -> bytes:
    return bytes.fromhex(md5)

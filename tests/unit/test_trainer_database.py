"""What a host remembers may be lost, and never stands in the way of a run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trainer
from trainer import database

SCHEMA = "CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY)"


def names(path: Path) -> list[str]:
    with database.opened(path, SCHEMA) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM seen ORDER BY name")]


def remember(path: Path, name: str) -> None:
    with database.opened(path, SCHEMA) as connection, connection:
        connection.execute("INSERT INTO seen VALUES (?)", (name,))


def test_what_one_run_writes_the_next_one_knows(tmp_path: Path) -> None:
    remember(tmp_path / "a.db", "cat")
    assert names(tmp_path / "a.db") == ["cat"]


def test_a_damaged_file_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"no database" * 1000)
    assert names(path) == []
    assert f"database.damaged path={path}" in caplog.text
    remember(path, "cat")
    assert names(path) == ["cat"]


def test_where_no_file_can_be_written_nothing_is_remembered_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "no such folder" / "a.db"
    remember(path, "cat")
    assert names(path) == []
    assert f"database.not_used path={path}" in caplog.text


def test_a_file_that_can_only_be_read_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    remember(path, "cat")
    before = path.read_bytes()
    connect = sqlite3.connect

    def read_only(where: str, **more: object) -> sqlite3.Connection:
        # Permissions bind no administrator, as whom the tests may run.
        return connect(where, **more) if where == ":memory:" else connect(f"file:{where}?mode=ro", uri=True)  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", read_only)
    remember(path, "dog")
    assert path.read_bytes() == before


def test_a_run_that_waits_too_long_for_anothers_write_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    remember(path, "cat")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with database.opened(path, SCHEMA) as writing:
        writing.execute("BEGIN EXCLUSIVE")
        assert names(path) == []
    assert names(path) == ["cat"]


WRITE = """
import sys
from pathlib import Path
from trainer import database
for number in range(50):
    with database.opened(Path(sys.argv[1]), "CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY)") as one, one:
        one.execute("INSERT INTO seen VALUES (?)", (f"{sys.argv[2]} {number}",))
"""


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(trainer.__file__).parents[1])}
    command = [sys.executable, "-c", WRITE, str(path)]
    with (
        subprocess.Popen([*command, "one"], env=environment) as one,
        subprocess.Popen([*command, "other"], env=environment) as other,
    ):
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert len(names(path)) == 100

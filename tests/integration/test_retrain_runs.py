"""Backfills, notes and priorities of a retrain, by Airflow's own code on a database of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = (f"202609{day:02d}T101500000Z-{day:08x}" for day in (1, 2, 3))


@pytest.fixture
def environment(empty_home: Path, tmp_path: Path) -> dict[str, str]:
    """An Airflow of the test's own, its database empty."""
    home = shutil.copytree(empty_home, tmp_path / "airflow")
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins" / "loaded"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
    }


def asked(environment: dict[str, str], what: str) -> Any:
    """The answer of `retrain_runs_dag.py`."""
    command = [sys.executable, str(Path(__file__).with_name("retrain_runs_dag.py"))]
    done = subprocess.run(
        command, env=environment | {"RETRAIN_RUNS": what}, capture_output=True, text=True, timeout=110, check=False
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(answers[-1].removeprefix("ANSWER "))


def test_a_backfill_does_what_airflow_documents_also_beside_automatic_runs(environment: dict[str, str]) -> None:
    found = asked(environment, "backfills")
    assert found["none"] == {"runs": [[FIRST, "already exists"], [SECOND, "already exists"], [THIRD, None]]}
    assert "There can be only one running backfill" in found["meanwhile"]["refused"]
    assert found["failed"] == {"runs": [[FIRST, "already exists"], [SECOND, None], [THIRD, None]]}
    assert [key for key, _ in found["backwards"]["runs"]] == [THIRD, SECOND, FIRST]


def test_runs_are_noted_and_a_backfills_know_theirs_and_wait_for_the_others(environment: dict[str, str]) -> None:
    found = asked(environment, "listened")
    assert found["conf"]["asset_triggered"] in ({}, None)
    assert found["conf"]["backfill"]["epochs"] == 1
    assert found["conf"]["backfill"]["backfill"].endswith("Z-1")
    assert found["weights"]["asset_triggered"] > found["weights"]["backfill"]
    assert found["failed"] == "a person's own\nOutcome: rollback failed: rolled back; v3 serves"
    assert found["good"] == "a person's own\nOutcome: kept champion: 97.1 % against 97.4 %"

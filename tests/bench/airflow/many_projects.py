"""Twenty projects on one system: how long their DAGs take to be read, and how late an alert is."""

from __future__ import annotations

import re
import subprocess
import time
from datetime import datetime, timedelta

import yaml

from tests.bench.airflow import figures
from tests.e2e.lab import PROJECTS, SETTINGS, remove_project
from tests.e2e.system import System, await_, docker, make

COUNT = 20
NAMES = [f"test-many-{number:02d}" for number in range(1, COUNT + 1)]
LATE_MINUTES = 1
# Between two runs that become late, so that they do it at moments of their own.
APART_SECONDS = 1.7

# As the DAG processor does it, a file in a process of its own; and all of them in one process.
READ = """
import sys, time
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
folder = Path(sys.argv[1])
for one in sys.argv[2:]:
    began = time.perf_counter()
    bag = DagBag(one, bundle_path=folder, bundle_name="projects")
    print(time.perf_counter() - began, len(bag.dags), len(bag.import_errors))
"""


def measure(system: System) -> None:
    """Prints the rows."""
    settings = SETTINGS | {"poll_seconds": 15, "late_minutes": LATE_MINUTES}
    try:
        for name in NAMES:
            (PROJECTS / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        make("up")
        await_("Airflow to read all projects", lambda: all(system.runs(f"{name}__watch") for name in NAMES), 180)
        figures.heading()
        reading(system)
        lateness(system)
    finally:
        for name in NAMES:
            remove_project(system, name)
        make("up")


def reading(system: System) -> None:
    """By Airflow's own clock of each file, and in a process that reads all of them one after the other."""
    own = [system.get(f"/dags/{name}__retrain")["last_parse_duration"] for name in NAMES]
    figures.row("a project's DAG file, by Airflow's own clock", own, "≤ 1", 3)
    processor = System.container_of("airflow-dag-processor")
    folder = "/tmp/airflow/dag_bundles/projects/dags"
    files = [f"{folder}/{name}.py" for name in NAMES]
    printed = docker("exec", processor, "python", "-c", READ, folder, files[0], *files)
    rows = [line.split() for line in printed.splitlines() if re.fullmatch(r"[\d.e-]+ 2 0", line)]
    assert len(rows) == 1 + COUNT, printed
    first, *others = (float(seconds) for seconds, _, _ in rows)
    figures.row("the first file of a fresh process, Airflow's imports included", [first], "", 3)
    figures.row("each further file in that process", others, "≤ 1", 3)
    figures.row(f"all {COUNT} files in that process", [sum(others)], "≤ 1", 3)


def lateness(system: System) -> None:
    """From the moment at which a run is late by the project's minutes to the alert that goes out."""
    due: dict[str, float] = {}
    for name in NAMES:
        # A run of a paused DAG stays in the queue.
        system.airflow("PATCH", f"/dags/{name}__retrain", {"is_paused": True})
    for name in NAMES:
        answer = system.trigger(name)
        assert answer.status_code == 200, answer.text
        asked_at = datetime.fromisoformat(answer.json()["queued_at"])
        due[name] = (asked_at + timedelta(minutes=LATE_MINUTES)).timestamp()
        time.sleep(APART_SECONDS)
    container = System.container_of("watchdog")

    def told() -> dict[str, float] | None:
        done = subprocess.run(["docker", "logs", "--timestamps", container], capture_output=True, text=True, check=True)
        found = {}
        for line in (done.stdout + done.stderr).splitlines():
            at, _, words = line.partition(" ")
            if match := re.search(r"incident=\S+ (\S+): a retrain is late", words):
                found[match[1]] = datetime.fromisoformat(at[:26] + "+00:00").timestamp()
        return found if found.keys() >= due.keys() else None

    found = await_("every alert", told, 60 * LATE_MINUTES + 90)
    figures.row("from late to told", [found[name] - at for name, at in due.items()], "≤ 5")

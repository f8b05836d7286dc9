"""What a task's process, of which a retrain has ten, imports before its work begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import preloaded
import yaml

ROOT = Path(__file__).parents[2]
AIRFLOW = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["x-airflow-environment"]


def in_a_fresh_process(script: str) -> list[str]:
    """The JSON that the script prints last, with Airlock's folders where docker-compose.yaml gives them to Airflow."""
    folders = {
        name: AIRFLOW[name].replace("/opt/airlock", str(ROOT))
        for name in ("AIRFLOW__CORE__PLUGINS_FOLDER", "PYTHONPATH")
    }
    # As images/base has it. The tests' environment also has a NumPy, with threads; the image has none.
    alone = {"MLFLOW_DISABLE_TELEMETRY": "true", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **folders, **alone}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_airflow_finds_the_plugin_and_imports_nothing_else_of_its_folder() -> None:
    found = in_a_fresh_process(
        "import json, sys\n"
        "from airflow.plugins_manager import get_timetables_plugins\n"
        "from airflow.sdk.listener import get_listener_manager\n"
        "get_listener_manager()\n"
        "timetables = [name for name in get_timetables_plugins() if 'snapshot_timetable' in name]\n"
        "print(json.dumps([*timetables, *sys.modules]))"
    )
    assert found[0] == "snapshot_timetable.SnapshotTimetable"
    assert {"airlock_plugin", "run_listener"} <= set(found)
    assert {"airlock_page", "deploy_operator", "mlflow", "docker"}.isdisjoint(found)


def test_reading_a_projects_dags_imports_no_mlflow() -> None:
    found = in_a_fresh_process(
        "import json, sys\nfrom dags.projects import dags_of\ndags_of('digits')\nprint(json.dumps(list(sys.modules)))"
    )
    assert {"deploy_operator", "settled_change_sensor"} <= set(found)
    assert {"mlflow", "include.real_world", "airlock_page"}.isdisjoint(found)


def test_what_is_imported_before_processes_are_forked_starts_no_thread() -> None:
    names = [*preloaded.EVERYONES, *preloaded.TASKS]
    threads = in_a_fresh_process(
        "import importlib, json, os\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(os.listdir('/proc/self/task')))"
    )
    assert len(threads) == 1, "a lock that another thread holds would stay held in a forked process"

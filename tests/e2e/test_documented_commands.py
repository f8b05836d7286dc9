"""The commands that README.md shows, as they stand there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tests.e2e.readme import PROJECT, block, shell
from tests.e2e.system import ROOT, System, await_
from tests.tools.environments import executable


def test_a_run_is_started_from_a_shell(system: System) -> None:
    started = json.loads(shell(block("/dagRuns"), ROOT))
    assert started["conf"] == {"epochs": 3, "reason": "a try by hand"}
    run = system.run(f"{PROJECT}__retrain", started["dag_run_id"])
    system.await_task(run, "choose_snapshot", "success")
    system.give_up(run)


def test_a_run_is_started_with_airflows_own_client(system: System, tmp_path: Path) -> None:
    client = executable("airflowctl", "airflowctl")
    login = block("/dagRuns").partition("\n\n")[0]
    environment = {"PATH": f"{client.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    known = system.runs(f"{PROJECT}__retrain")
    shell(f"{login}\n{block('airflowctl')}", ROOT, environment)
    (run,) = [one for one in system.runs(f"{PROJECT}__retrain") if one not in known]
    # Airflow's client, like its form, gives a run a logical date, by which Airflow then marks the tasks that run.
    await_("its run in MLflow", lambda: system.mlflow_runs(run), 120)
    run = system.give_up(run)
    assert (run.state, system.tasks(run)["train"]) == ("failed", "failed")
    await_("its container to be gone", lambda: not system.containers(PROJECT, "task"), 60)
    assert [one["info"]["status"] for one in system.mlflow_runs(run)] == ["KILLED"]


def test_the_dataset_of_what_serves_is_checked_out_with_a_stock_dvc(system: System, tmp_path: Path) -> None:
    served = system.metadata(PROJECT)
    dvc = executable("dvc", "dvc")
    keys = [system.settings[f"S3_TRAINER_{key}"] for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    script = block("dvc pull").replace("KEY_ID=…", f"KEY_ID={keys[0]}").replace("ACCESS_KEY=…", f"ACCESS_KEY={keys[1]}")
    script = re.sub(r"[0-9a-f]{32}\.dir", served["snapshot_md5"], script)
    environment = {"PATH": f"{dvc.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "DVC_NO_ANALYTICS": "1"}
    shell(script, tmp_path, environment)
    record = json.loads(system.read("airlock", f"snapshots/{PROJECT}/{served['snapshot_id']}.json"))
    assert sum(path.is_file() for path in (tmp_path / PROJECT).rglob("*")) == record["count"]
    pointer = system.read("airlock", f"snapshots/{PROJECT}/{served['snapshot_id']}.dvc").decode()
    assert (tmp_path / f"{PROJECT}.dvc").read_text() == pointer

"""One project with a trainer that trains nothing: what lies between an upload and what serves, and a long backfill."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.bench.airflow import figures
from tests.e2e.lab import SETTINGS, Lab, pictures, remove_project, take_a_snapshot
from tests.e2e.system import ROOT, Event, Run, System, await_, container_events, docker, images

UPLOADS = 30
SNAPSHOTS = 50
KILLS = 5
IMAGES_FILE = ROOT / ".airlock" / "state" / "images.json"
HERE = Path(__file__).parent
IN_CONTAINERS = ("gpu_check", "train", "evaluate")


def measure(system: System) -> None:
    """Prints the rows."""
    lab = Lab(system, "test-bench")
    try:
        lab.configure(bake={"seconds": 1, "max_p99_ratio": 100.0})
        lab.put(pictures()[:400])
        run = system.await_end(lab.await_new_retrain([]))
        assert run.state == "success", system.tasks(run)
        figures.heading()
        kills(lab)
        with instant_trainer():
            uploads(lab)
            backfill(lab)
    finally:
        remove_project(system, lab.name)


@contextmanager
def instant_trainer() -> Iterator[None]:
    """The trainer image is one that trains nothing meanwhile."""
    before = IMAGES_FILE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "instant_trainer.py").write_text((HERE / "instant_trainer.py").read_text())
        (Path(folder) / "Dockerfile").write_text(
            f"FROM {images()['TRAINER_DEFAULT']}\nCOPY instant_trainer.py /opt/airlock/\n"
            'ENTRYPOINT ["python", "/opt/airlock/instant_trainer.py"]\n'
        )
        subprocess.run(["docker", "build", "--quiet", "--tag", "airlock-trainer-instant:bench", folder], check=True)
    told: dict[str, Any] = json.loads(before)
    told["trainer"]["default"] = "airlock-trainer-instant:bench"
    IMAGES_FILE.write_text(json.dumps(told))
    try:
        yield
    finally:
        IMAGES_FILE.write_text(before)


def uploads(lab: Lab) -> None:
    """From the last upload to the training's container, and what a retrain takes outside of its tasks' work."""
    to_container: list[float] = []
    around: list[float] = []
    empty: list[float] = []
    with container_events(f"label=airlock.project={lab.name}") as events:
        for number in range(UPLOADS):
            measured = upload(lab, number, events)
            for values, value in zip((to_container, around, empty), measured, strict=True):
                values.append(value)
    figures.row("last upload to the training's container, less settle", to_container, "≤ 20 (p95)")
    figures.row("a whole retrain outside of its tasks, less settle", around, "≤ 30")
    figures.row("Airflow's own for the whole DAG: its time less what containers and steps work", empty, "≤ 8")


def upload(lab: Lab, number: int, events: Callable[[], list[Event]]) -> tuple[float, float, float]:
    """The three figures of one upload."""
    known = lab.retrains()
    lab.put(pictures()[400 + number : 401 + number])
    uploaded = time.time()
    run = lab.system.await_end(lab.await_new_retrain(known))
    assert run.state == "success", lab.system.tasks(run)
    tasks, containers = times(lab.system, run), container_seconds(events(), run)
    settled = uploaded + SETTINGS["settle_seconds"]
    began, ended = min(begin for begin, _ in tasks.values()), max(end for _, end in tasks.values())
    in_tasks = sum(end - begin for begin, end in tasks.values())
    in_containers = sum(containers[task][1] - containers[task][0] for task in IN_CONTAINERS)
    in_steps = sum(end - begin for task, (begin, end) in tasks.items() if task not in IN_CONTAINERS)
    return (
        containers["train"][0] - settled,
        ended - settled - snapshot_seconds(lab, run) - in_tasks,
        ended - began - in_containers - in_steps,
    )


def backfill(lab: Lab) -> None:
    """Fifty snapshots that no run has trained, by one backfill."""
    system = lab.system
    system.airflow("PATCH", f"/dags/{lab.name}__watch", {"is_paused": True})
    for number in range(SNAPSHOTS):
        lab.put(pictures()[500 + number : 501 + number])
        take_a_snapshot(lab)
    before, began = memory(system), time.time()
    body = {
        "dag_id": f"{lab.name}__retrain",
        "from_date": "2026-01-01T00:00:00Z",
        "to_date": "2099-01-01T00:00:00Z",
        "max_active_runs": 4,
        "reprocess_behavior": "none",
        "dag_run_conf": {},
    }
    answer = system.airflow("POST", "/backfills", body)
    assert answer.status_code == 200, answer.text
    backfill_id = answer.json()["id"]
    await_("the backfill's end", lambda: system.get(f"/backfills/{backfill_id}")["completed_at"], 1800)
    minutes = (time.time() - began) / 60
    after = memory(system)
    rows = system.get(f"/dags/{lab.name}__retrain/dagRuns?limit=100&order_by=-run_after")["dag_runs"]
    states = [row["state"] for row in rows if row["dag_run_id"].startswith("backfill__")]
    assert states == ["success"] * SNAPSHOTS, states
    print(f"\nbackfill: {SNAPSHOTS} runs in {minutes:.1f} minutes, {SNAPSHOTS / minutes:.1f} a minute (goal: 8)")
    for service, mib in before.items():
        print(f"  {service}: {mib:.0f} MiB before, {after[service]:.0f} after")


def kills(lab: Lab) -> None:
    """From a kill of the scheduler in a training to the next attempt's first line about its container."""
    system, waited = lab.system, []
    snapshot = system.metadata(lab.name)["snapshot_id"]
    for _ in range(KILLS):
        run = lab.manual(snapshot, epochs=400, reason="the scheduler is killed")
        system.await_task(run, "train", "running")
        container = await_("the training's container", lambda: system.containers(lab.name, "task"), 60)[0]
        attempt = system.attempts(run, "train")
        killed = time.time()
        system.kill("airflow-scheduler")

        def followed(run: Run = run, attempt: int = attempt, container: str = container) -> bool:
            now = system.attempts(run, "train")
            return now > attempt and f"found name={container}" in system.log(run, "train", now)

        await_("the next attempt to follow it", followed, 300)
        waited.append(time.time() - killed)
        system.give_up(run)
        await_("the container to go", lambda: not system.containers(lab.name, "task"), 120)
    figures.row("kill of the scheduler to the next attempt at its container", waited)


def memory(system: System) -> dict[str, float]:
    """MiB of each of Airflow's parts, as the engine tells it."""
    found = {}
    for part in ("api-server", "scheduler", "dag-processor", "triggerer"):
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", system.container_of(f"airflow-{part}"))
        number, unit = used.split("/")[0].strip()[:-3], used.split("/")[0].strip()[-3:]
        found[f"airflow-{part}"] = float(number) * (1024 if unit == "GiB" else 1)
    return found


def times(system: System, run: Run) -> dict[str, tuple[float, float]]:
    """Start and end of each task of a run that ran, in seconds since 1970."""
    rows = system.get(f"/dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances")["task_instances"]
    return {
        row["task_id"]: (seconds_of(row["start_date"]), seconds_of(row["end_date"]))
        for row in rows
        if row["start_date"] and row["end_date"] and row["state"] != "skipped"
    }


def seconds_of(text: str) -> float:
    """An ISO time with its zone as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def snapshot_seconds(lab: Lab, run: Run) -> float:
    """How long the task took that took the run's snapshot."""
    for watch in lab.system.runs(f"{lab.name}__watch"):
        if (lab.system.xcom(watch, "snapshot") or {}).get("snapshot_id") == run.partition_key:
            begin, end = times(lab.system, watch)["snapshot"]
            return end - begin
    raise AssertionError(f"no run of the watch made {run.partition_key}")


def container_seconds(events: list[Event], run: Run) -> dict[str, tuple[float, float]]:
    """Start and end of each container of a run, by task."""
    found: dict[str, list[float]] = {}
    for event in events:
        labels = event["Actor"]["Attributes"]
        if event["Action"] in ("start", "die") and labels.get("airlock.run_id") == run.run_id:
            found.setdefault(labels["airlock.task_id"], []).append(event["timeNano"] / 1e9)
    return {task: (at[0], at[-1]) for task, at in found.items()}

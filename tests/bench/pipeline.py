"""`make bench-pipeline`: from the last upload to a switched release, stage by stage, on the running system.

A project of its own gets some pictures, then more of them ROUNDS times; each round is an automatic retrain that ends
in a deploy. Times are Airflow's own; the training loop's is from the epochs that MLflow recorded.
"""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from urllib.parse import quote

from tests.e2e.lab import SETTINGS, Lab, pictures, remove_project
from tests.e2e.system import Run, System

ROUNDS = 5
FIRST = 600
MORE = 100


def seconds_of(text: str) -> float:
    """An ISO time with its zone as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def times(system: System, run: Run) -> dict[str, tuple[float, float]]:
    """Start and end of each task of a run that ran."""
    rows = system.get(f"/dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances")["task_instances"]
    return {
        row["task_id"]: (seconds_of(row["start_date"]), seconds_of(row["end_date"]))
        for row in rows
        if row["start_date"] and row["end_date"]
    }


def training_loop(system: System, run_id: str) -> float:
    """Seconds that the epochs took: the first one's start is reckoned from the distance of the others."""
    path = "metrics/get-history"
    rows = system.mlflow(path, run_id=run_id, metric_key="train/loss")["metrics"]
    at = sorted(float(row["timestamp"]) / 1000 for row in rows)
    return (at[-1] - at[0]) * len(at) / (len(at) - 1)


def one_round(lab: Lab, system: System, number: int) -> dict[str, float]:
    """Uploads more pictures and measures their way."""
    known = lab.retrains()
    start = FIRST + number * MORE
    lab.put(pictures()[start : start + MORE])
    uploaded = time.time()
    run = system.await_end(lab.await_new_retrain(known))
    assert run.state == "success", system.tasks(run)
    watch = next(
        found
        for found in system.runs(f"{lab.name}__watch")
        if (system.xcom(found, "snapshot") or {}).get("snapshot_id") == run.partition_key
    )
    waited, retrain = times(system, watch), times(system, run)
    loop = training_loop(system, system.xcom(run, "train")["run_id"])
    switched = retrain["deploy"][1]
    stage = {f"{task}": end - began for task, (began, end) in retrain.items()}
    return {
        "settle": SETTINGS["settle_seconds"],
        "upload to snapshot's start, less settle": waited["snapshot"][0] - uploaded - SETTINGS["settle_seconds"],
        "snapshot": waited["snapshot"][1] - waited["snapshot"][0],
        "snapshot to the retrain's first task": retrain["choose_snapshot"][0] - waited["snapshot"][1],
        **{task: stage[task] for task in ("choose_snapshot", "gpu_check")},
        "train: the epochs": loop,
        "train: all else": stage["train"] - loop,
        **{task: stage[task] for task in ("register", "evaluate", "gate", "deploy")},
        "between the tasks": switched
        - retrain["choose_snapshot"][0]
        - sum(stage[t] for t in ("choose_snapshot", "gpu_check", "train", "register", "evaluate", "gate", "deploy")),
        "verify": stage["verify"],
        "promote": stage["promote"],
        "**upload to switched, less settle and epochs**": switched - uploaded - SETTINGS["settle_seconds"] - loop,
    }


def main() -> None:
    """Prints the table of docs/benchmarks.md."""
    system = System()
    lab = Lab(system, "test-bench")
    try:
        lab.configure()
        lab.put(pictures()[:FIRST])
        system.await_end(lab.await_new_retrain([]))
        rounds = [one_round(lab, system, number) for number in range(ROUNDS)]
    finally:
        remove_project(system, lab.name)
    print(f"| stage, seconds ({ROUNDS} rounds) | median | least | most |\n|---|---|---|---|")
    for stage in rounds[0]:
        values = [found[stage] for found in rounds]
        print(f"| {stage} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")


if __name__ == "__main__":
    main()

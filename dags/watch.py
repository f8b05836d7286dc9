"""`<project>__watch`: notices that the bucket has changed, takes a snapshot, and lets the retrain start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG
from settled_change_sensor import SettledChangeSensor
from snapshot_operator import SnapshotOperator

from dags.assets import snapshots_of
from include.project import Project

DOC = """
### Watches the bucket `{bucket}`

**What starts it:** nothing, one run always waits. `wait_for_change` compares the bucket with the newest snapshot that
has a run: added, overwritten and deleted pictures all count. Once nothing has changed for {settle} s, `snapshot` pins
what is there, and the DAG `{project}__retrain` starts.

**What it waits for:** the log of `wait_for_change` says it, and its XCom `progress` has the newest words.

**What it leaves:** a record and a DVC file in `airlock/snapshots/{project}/`, the pictures' content in the DVC remote.
A bucket that holds again what the newest snapshot holds starts nothing. While `{project}__retrain` is paused, Airflow
makes no run of a snapshot: trigger one when you un-pause it, or pause this DAG too.

**When it fails:** an unreachable S3 or a missing bucket is waited out. A failed `snapshot` is retried; after that the
same state is tried again every 10 minutes, a new state of the bucket at once. After {limit} failed runs in a row
Airflow pauses the DAG: mend the cause that the log of `snapshot` names, then un-pause it.
"""

WAIT_DOC = "Waits until the bucket has changed and settled; its XCom `progress` says for what it waits now."
SNAPSHOT_DOC = "Pins what the bucket holds, from its listing. Failed: its log names the objects, or the server."

# The last resort against a wait that fails at once, over and over; what fails slower is retried for hours.
FAILED_RUNS_BEFORE_PAUSE = 20


def watch_dag(dag_id: str, project: Project) -> DAG:
    """The watch of one project."""
    with DAG(
        dag_id,
        schedule="@continuous",
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        # One run always waits: another by hand could only wait behind it.
        allowed_run_types=["scheduled"],  # type: ignore[list-item]  # Airflow converts it
        max_consecutive_failed_dag_runs=FAILED_RUNS_BEFORE_PAUSE,
        default_args={
            "retries": 5,
            "retry_delay": timedelta(seconds=5),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=2),
        },
        description=f"Takes a snapshot when the bucket {project.bucket} has changed and settled",
        doc_md=DOC.format(
            bucket=project.bucket,
            project=project.name,
            settle=project.settle_seconds,
            limit=FAILED_RUNS_BEFORE_PAUSE,
        ),
        tags=["airlock", project.name],
    ) as dag:
        wait_for_change = SettledChangeSensor(
            task_id="wait_for_change", project=project.name, snapshot_task="snapshot", doc_md=WAIT_DOC
        )
        snapshot = SnapshotOperator(
            task_id="snapshot",
            doc_md=SNAPSHOT_DOC,
            project=project.name,
            train_bucket=project.bucket,
            image=f"trainer:{project.trainer}",
            memory_bytes=project.memory_bytes,
            pool="snapshot",
            asset=snapshots_of(project.name),
            expected_digest="{{ ti.xcom_pull(task_ids='wait_for_change')['listing_digest'] }}",
        )
        wait_for_change >> snapshot
    return dag

"""A DAG of one container task, run by Airflow's own task runner in a process that a test may stop or kill.

`OPERATOR_TEST` holds what a test asks for: `{"code", "timeout", "retries"}` for one container, `{"training"}` for the
code of one that trains, or `{"snapshots": […]}`, the results of the snapshot command in as many runs. Each outcome is
written to stdout as one line `OUTCOME {json}`.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import container_operator
from airflow.sdk import DAG, Asset
from container_operator import ContainerOperator
from snapshot_operator import SnapshotOperator
from train_operator import TrainOperator

SNAPSHOTS = Asset("airlock://snapshots/digits")
COMMON: dict[str, Any] = {
    "project": "digits",
    "train_bucket": "digits-train",
    "image": "trainer:default",
    "memory_bytes": 64 << 20,
}

container_operator.STOP_GRACE_SECONDS = 5  # type: ignore[attr-defined]

asked: dict[str, Any] = json.loads(os.environ["OPERATOR_TEST"])
with DAG("digits__operator", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    if "snapshots" in asked:
        SnapshotOperator(
            task_id="container",
            asset=SNAPSHOTS,
            expected_digest="{{ dag_run.conf['result'] }}",
            **COMMON,
        )
    elif "training" in asked:
        training = TrainOperator(
            task_id="container",
            environment={"SNAPSHOT_ID": "20261123T171409123Z-c71581aa"},
            retry_delay=timedelta(seconds=0),
            **COMMON,
        )
        training.command = [f"from task import *\n{asked['training']}"]
    else:
        ContainerOperator(
            task_id="container",
            command=[f"from task import *\n{asked['code']}"],
            environment={"RENDERED": "{{ dag.dag_id }}", "NUMBER": "7"},
            execution_timeout=timedelta(seconds=asked["timeout"]) if "timeout" in asked else None,
            retries=asked.get("retries", 0),
            retry_delay=timedelta(seconds=0),
            **COMMON,
        )


def outcome(day: int = 1, result: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the task once, on that day's date; what Airflow knows of it afterwards."""
    from airflow.models.asset import AssetEvent
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from sqlalchemy import select

    at = datetime(2026, 1, day, tzinfo=UTC)
    stored: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("container")
    run = dag.test(logical_date=at, run_after=at, run_conf={"result": json.dumps(result)})
    with create_session() as session:
        (ti,) = run.get_task_instances(session=session)
        fields = session.scalars(select(RenderedTaskInstanceFields)).all()
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        return {
            "state": str(ti.state),
            "try_number": ti.try_number,
            "result": ti.xcom_pull(task_ids="container", session=session),
            "links": {name: stored.get_extra_links(ti, name) for name in stored.extra_links},
            "rendered": [field.rendered_fields for field in fields],
            "events": [{"key": event.partition_key, "extra": event.extra} for event in events],
        }


if __name__ == "__main__":
    from airflow.sdk.log import configure_logging

    # As the supervisor of a real task writes its log: with secrets masked.
    configure_logging(output=sys.stdout.buffer)
    for day, result in enumerate(asked.get("snapshots", [None]), start=1):
        print("OUTCOME", json.dumps(outcome(day, result), default=str), flush=True)

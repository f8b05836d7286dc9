"""Takes a snapshot in the trainer image and tells Airflow about it, once."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, Context, TaskInstanceState
from airflow.sdk.exceptions import AirflowSkipException
from container_operator import ContainerOperator

# Who and what made a snapshot, for its record.
TRIGGERED_BY = (
    "{{ dag_run.run_type }} run {{ run_id }} of {{ dag.dag_id }}"
    "{% if dag_run.triggering_user_name %} by {{ dag_run.triggering_user_name }}{% endif %}"
)


def last_result(instance: Any, task_id: str) -> dict[str, Any] | None:
    """What the snapshot task of the newest earlier run left that ended well; None where there is none.

    `instance` is any task instance of the same DAG: those of its own task that ended well lead to the runs before.
    """
    run = instance.get_previous_ti(state=TaskInstanceState.SUCCESS)
    while run is not None:
        states = instance.get_task_states(dag_id=run.dag_id, task_ids=[task_id], run_ids=[run.run_id])
        if states.get(run.run_id, {}).get(task_id) == TaskInstanceState.SUCCESS:
            result = instance.xcom_pull(task_ids=task_id, run_id=run.run_id)
            if result is not None:  # a person may have called it a success
                return dict(result)
        run = instance.get_previous_ti(state=TaskInstanceState.SUCCESS, logical_date=run.logical_date)
    return None


class SnapshotOperator(ContainerOperator):
    """Runs `snapshot` on what the sensor saw settle and emits the asset's partition, whose key is the snapshot's id.

    Skips, with its reason, when the bucket has changed since (the wait begins anew) and when the newest snapshot,
    which has had its event, still holds the same bytes. A snapshot without an event, left by a task that was killed in
    between, gets it now.

    Which snapshot had an event, the last success of this task says: Airflow stores both in one transaction. The asset's
    own events cannot be read while a run of them is queued (3.3.2 answers 500, since such a run has no start).

    :param asset: the snapshots' asset (outlet)
    :param expected_digest: the listing that settled (templated); empty: take what is there
    """

    def __init__(
        self,
        *,
        asset: Asset,
        expected_digest: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            command=["snapshot"],
            environment={"EXPECTED_DIGEST": expected_digest, "TRIGGERED_BY": TRIGGERED_BY},
            outlets=[asset],
            **kwargs,
        )
        self.asset = asset

    def execute(self, context: Context) -> Any:
        """Take the snapshot; returns its result after telling the asset's event."""
        result = super().execute(context)
        if result["status"] == "changed":
            raise AirflowSkipException(f"{result['reason']}; waiting until the bucket is quiet again")
        last = last_result(context["ti"], self.task_id) or {}
        has_event = last.get("snapshot_id") == result["snapshot_id"]
        if has_event and last.get("listing_digest") == result["listing_digest"]:
            raise AirflowSkipException(f"nothing new: {result['snapshot_id']} is the newest snapshot and has its event")
        event = context["outlet_events"][self.asset]
        event.extra = {key: result[key] for key in ("snapshot_id", "listing_digest", "count")}
        if has_event:
            # Same bytes behind another listing (an upload in other parts). The watch must learn of the listing, or it
            # would wake again and again; without a partition the event starts no run.
            self.log.info("nothing new in %s, but its listing has changed", result["snapshot_id"])
        else:
            event.add_partitions(result["snapshot_id"])
        return result

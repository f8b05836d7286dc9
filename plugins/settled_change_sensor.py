"""The sensor of the watch: waits until a project's bucket has changed and settled."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from settled_change_trigger import SettledChangeTrigger
from snapshot_operator import last_result

CONN_ID = "airlock_s3"


class SettledChangeSensor(BaseSensorOperator):
    """Waits, deferred, for a state of the bucket that no run has had; returns `{"listing_digest", "count"}`.

    :param project: name of the project whose bucket is watched
    :param snapshot_task: id of the task that takes the snapshots. Its last success is the newest snapshot that has a
        run, and the `listing_digest` of its result is what the bucket is compared with. A record in S3 would not do: a
        snapshot task killed between its record and its event would never get a run.
    """

    def __init__(self, *, project: str, snapshot_task: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.snapshot_task = snapshot_task

    def execute(self, context: Context) -> None:
        """Defer to the trigger, for as long as it takes."""
        self.defer(
            trigger=SettledChangeTrigger(
                project=self.project,
                conn_id=CONN_ID,
                baseline=self._baseline(context),
                failed=self._failed(context),
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Hand the settled listing on to the snapshot."""
        self.log.info("settled: %s files, listing %s", event["count"], event["listing_digest"][:12])
        return event

    def _baseline(self, context: Context) -> str | None:
        result = last_result(context["ti"], self.snapshot_task)
        return str(result["listing_digest"]) if result else None

    def _failed(self, context: Context) -> str | None:
        """The listing of the run before this one, where that run failed; None else."""
        instance = context["ti"]
        before = instance.get_previous_dagrun()
        if before is None or before.state != "failed":
            return None
        settled = instance.xcom_pull(task_ids=self.task_id, run_id=before.run_id)
        return settled["listing_digest"] if settled else None

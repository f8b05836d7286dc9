"""Takes a snapshot in the trainer image and tells Airflow about it, once."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowSkipException
from container_operator import ContainerOperator

# Who and what made a snapshot, for its record.
TRIGGERED_BY = (
    "{{ dag_run.run_type }} run {{ run_id }} of {{ dag.dag_id }}"
    "{% if dag_run.triggering_user_name %} by {{ dag_run.triggering_user_name }}{% endif %}"
)
# The newest events of the asset; an older snapshot is never the newest record.
EVENTS_LOOKED_AT = 20


class SnapshotOperator(ContainerOperator):
    """Runs `snapshot` on what the sensor saw settle and emits the asset's partition, whose key is the snapshot's id.

    Skips, with its reason, when the bucket has changed since (the wait begins anew) and when the newest snapshot,
    which has had its event, still holds the same bytes. A snapshot without an event, left by a task that was killed in
    between, gets it now.

    :param asset: the snapshots' asset (inlet and outlet)
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
            inlets=[asset],
            outlets=[asset],
            **kwargs,
        )
        self.asset = asset

    def execute(self, context: Context) -> Any:
        """Take the snapshot; returns its result after telling the asset's event."""
        result = super().execute(context)
        if result["status"] == "changed":
            raise AirflowSkipException(f"{result['reason']}; waiting until the bucket is quiet again")
        known = [
            event.extra or {} for event in context["inlet_events"][self.asset].ascending(False).limit(EVENTS_LOOKED_AT)
        ]
        has_event = any(extra.get("snapshot_id") == result["snapshot_id"] for extra in known)
        if has_event and known[0].get("listing_digest") == result["listing_digest"]:
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

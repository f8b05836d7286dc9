"""One schedule for automatic, manual and backfill runs: a run for each snapshot, its id the partition key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pendulum
from airflow.exceptions import InvalidPartitionKeyError
from airflow.partition_mappers.identity import IdentityMapper
from airflow.timetables.base import DagRunInfo
from airflow.timetables.simple import PartitionedAssetTimetable

from include.settings import get_settings
from include.snapshots import snapshot_ids, taken_at


class SnapshotMapper(IdentityMapper):
    """A snapshot's id is the partition key of its runs, and says their date.

    Stock mappers leave the date of an Asset's run empty; a backfill looks runs up by that date, and would
    train again what an automatic run has trained.
    """

    def to_partition_date(self, downstream_key: str) -> datetime:
        """When the snapshot was taken. Raises ValueError where the key is no snapshot id."""
        return taken_at(downstream_key)


class SnapshotTimetable(PartitionedAssetTimetable):
    """Runs for the snapshots of one project: by their Asset, by hand with a partition key, or by backfill."""

    description = "A run for each snapshot of the dataset"
    periodic = True  # a timetable that is not refuses backfills

    def __init__(self, *, project: str, **kwargs: Any) -> None:
        kwargs.setdefault("default_partition_mapper", SnapshotMapper())
        super().__init__(**kwargs)
        self.project = project

    @property
    def summary(self) -> str:
        """What the UI shows as the schedule."""
        return f"Each snapshot of {self.project}"

    def serialize(self) -> dict[str, Any]:
        """The timetable as JSON, for the schedulers and API servers that do not read DAG files."""
        return {**super().serialize(), "project": self.project}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> SnapshotTimetable:
        """The timetable that `serialize` wrote."""
        stock = PartitionedAssetTimetable.deserialize(data)
        return cls(
            project=data["project"],
            assets=stock.asset_condition,
            partition_mapper_config=stock.partition_mapper_config,
            default_partition_mapper=stock.default_partition_mapper,
        )

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterator[DagRunInfo]:
        """One run for each snapshot taken between the two, both included; reads the catalogue in S3."""
        for snapshot_id in snapshot_ids(get_settings(), self.project):
            at = taken_at(snapshot_id)
            if earliest <= at <= latest:
                moment = pendulum.instance(at)
                yield DagRunInfo(run_after=moment, data_interval=None, partition_date=moment, partition_key=snapshot_id)

    def _decode_partition_date(self, partition_key: str) -> datetime:
        try:
            return taken_at(partition_key)
        except ValueError as error:
            raise InvalidPartitionKeyError(f"{error}. Leave the partition key empty for the newest snapshot") from None

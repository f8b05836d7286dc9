"""One schedule for automatic, manual and backfill runs: a run for each snapshot, its id the partition key."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from secrets import token_hex
from typing import Any

import pendulum
from airflow.exceptions import InvalidPartitionKeyError
from airflow.partition_mappers.identity import IdentityMapper
from airflow.timetables.base import DagRunInfo
from airflow.timetables.simple import PartitionedAssetTimetable
from airflow.utils.types import DagRunType

from include.s3 import StorageError
from include.settings import get_settings
from include.snapshots import UnknownSnapshot, choose, snapshot_ids, taken_at

log = logging.getLogger(__name__)


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

    def generate_run_id(self, *, run_type: DagRunType, partition_key: str | None = None, **kwargs: Any) -> str:
        """The id of a new run; of a backfill's a new one each time.

        Airflow's own says only when the snapshot was taken: a second backfill over it would end in a duplicate key.
        """
        if run_type == DagRunType.BACKFILL_JOB and partition_key is not None:
            return run_type.generate_run_id(suffix=f"{partition_key}__{token_hex(3)}")
        own: str = super().generate_run_id(run_type=run_type, partition_key=partition_key, **kwargs)
        return own

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterator[DagRunInfo]:
        """One run for each snapshot taken between the two, both included; reads the catalogue in S3.

        Where there is none, Airflow's words are the answer: its form tries a range before it is asked for it.
        """
        if earliest == latest:
            # No backfill: so asks Airflow (mark_tasks.get_run_ids) when a person marks a run that has a logical date.
            # It looks for that date in what comes, where no snapshot's run has one; and S3 may be away.
            return
        for snapshot_id in self._catalogue():
            moment = pendulum.instance(taken_at(snapshot_id))
            if earliest <= moment <= latest:
                yield DagRunInfo(run_after=moment, data_interval=None, partition_date=moment, partition_key=snapshot_id)

    def _catalogue(self) -> list[str]:
        """The snapshots for a backfill; where S3 is away, an error whose words Airflow's form and API show."""
        from airflow.models.backfill import InvalidBackfillDate  # not in every process that reads DAGs

        try:
            return snapshot_ids(get_settings(), self.project)
        except StorageError as error:
            raise InvalidBackfillDate(f"the snapshots of {self.project} cannot be listed: {error}") from None

    def _decode_partition_date(self, partition_key: str) -> datetime:
        """Asked when a person or a program triggers a run, which is refused here where it could only fail."""
        try:
            at = taken_at(partition_key)
            choose(snapshot_ids(get_settings(), self.project), partition_key, self.project)
        except ValueError as error:
            raise InvalidPartitionKeyError(f"{error}. Leave the partition key empty for the newest snapshot") from None
        except UnknownSnapshot as error:
            raise InvalidPartitionKeyError(str(error)) from None
        except StorageError as error:
            log.warning(
                "the partition key %s is taken unseen, the run's first task checks it: %s", partition_key, error
            )
        return at

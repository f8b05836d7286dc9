"""What Airflow learns from Airlock by its plugin interface."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from snapshot_timetable import SnapshotMapper, SnapshotTimetable


class AirlockPlugin(AirflowPlugin):
    """Registers the timetable of snapshots and its mapper."""

    name = "airlock"
    timetables = [SnapshotTimetable]  # noqa: RUF012 - Airflow's interface
    partition_mappers = [SnapshotMapper]  # noqa: RUF012

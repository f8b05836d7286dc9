"""What Airflow learns from Airlock by its plugin interface."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from automatic_first import AutomaticFirst
from run_listener import RunListener
from snapshot_timetable import SnapshotMapper, SnapshotTimetable


class AirlockPlugin(AirflowPlugin):
    """Registers the timetable of snapshots with its mapper, the order at the pools, and the listener."""

    name = "airlock"
    timetables = [SnapshotTimetable]  # noqa: RUF012 - Airflow's interface
    partition_mappers = [SnapshotMapper]  # noqa: RUF012
    priority_weight_strategies = [AutomaticFirst]  # noqa: RUF012
    listeners = [RunListener()]  # noqa: RUF012

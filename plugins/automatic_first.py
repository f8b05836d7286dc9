"""Who is next at a pool: an automatic run or a person's before a backfill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.utils.types import DagRunType

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

AHEAD_OF_BACKFILLS = 100


class AutomaticFirst(PriorityWeightStrategy):
    """A backfill's task waits at its pool until no other run's task does."""

    def get_weight(self, ti: TaskInstance) -> int:
        """The task's own weight, and more where its run is no backfill."""
        own = ti.task.priority_weight if ti.task else 1
        backfill = DagRunType.from_run_id(ti.run_id) == DagRunType.BACKFILL_JOB
        return own if backfill else own + AHEAD_OF_BACKFILLS

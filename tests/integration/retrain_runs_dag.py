"""Runs of a real `__retrain` DAG in an Airflow database of its own: what its scheduler's parts make of them.

`RETRAIN_RUNS` names what is asked; the answer is one line `ANSWER {json}` on stdout.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import snapshot_timetable
from airflow.models.backfill import (
    AlreadyRunningBackfill,
    Backfill,
    BackfillDagRun,
    ReprocessBehavior,
    _create_backfill,
)
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from dags.retrain import retrain_dag
from include.project import Project
from include.snapshots import taken_at

SNAPSHOTS = [f"202609{day:02d}T101500000Z-{day:08x}" for day in (1, 2, 3)]
DAG_ID = "digits__retrain"
PROJECT = Project(name="digits", bucket="digits-train", device="cpu")

mock.patch.object(snapshot_timetable, "snapshot_ids", return_value=SNAPSHOTS).start()
mock.patch.object(snapshot_timetable, "get_settings", return_value=None).start()


def sync() -> None:
    """What the dag-processor does."""
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    with create_session() as session:
        session.merge(DagBundleModel(name="projects"))
        session.commit()
        dag = LazyDeserializedDAG.from_dag(retrain_dag(DAG_ID, PROJECT))
        update_dag_parsing_results_in_db("projects", None, [dag], {}, None, set(), session)


def serialized(session: Any) -> Any:
    """The DAG as the scheduler sees it."""
    return session.scalar(SerializedDagModel.latest_item_select_object(DAG_ID)).dag  # type: ignore[no-untyped-call]


def automatic(snapshot_id: str, state: DagRunState) -> None:
    """A run that the snapshot's event has made."""
    with create_session() as session:
        dag = serialized(session)
        dag.create_dagrun(
            run_id=f"asset_triggered__{snapshot_id}",
            partition_key=snapshot_id,
            partition_date=taken_at(snapshot_id),
            run_after=taken_at(snapshot_id),
            run_type=DagRunType.ASSET_TRIGGERED,
            triggered_by=DagRunTriggeredByType.ASSET,
            state=state,
            start_date=datetime.now(UTC),
            session=session,
        )


def backfill(reprocess: str, *, reverse: bool = False, complete: bool = True) -> dict[str, Any]:
    """What a backfill over all of September makes."""
    try:
        made = _create_backfill(
            dag_id=DAG_ID,
            from_date=datetime(2026, 9, 1, tzinfo=UTC),
            to_date=datetime(2026, 9, 30, tzinfo=UTC),
            max_active_runs=2,
            reverse=reverse,
            dag_run_conf={"epochs": 1},
            triggering_user_name="ann",
            reprocess_behavior=ReprocessBehavior(reprocess),
        )
    except AlreadyRunningBackfill as error:
        return {"refused": str(error)}
    with create_session() as session:
        rows = session.scalars(
            select(BackfillDagRun).where(BackfillDagRun.backfill_id == made.id).order_by(BackfillDagRun.sort_ordinal)
        ).all()
        if complete:
            session.get(Backfill, made.id).completed_at = datetime.now(UTC)  # type: ignore[union-attr]
        return {"runs": [(row.partition_key, row.exception_reason) for row in rows]}


def backfills() -> dict[str, Any]:
    """Each reprocess behaviour, where one automatic run was good and another failed."""
    automatic(SNAPSHOTS[0], DagRunState.SUCCESS)
    automatic(SNAPSHOTS[1], DagRunState.FAILED)
    found = {"none": backfill("none", complete=False), "meanwhile": backfill("none")}
    with create_session() as session:
        for run in session.scalars(select(DagRun)).all():
            if run.run_type == DagRunType.BACKFILL_JOB:
                session.delete(run)
        for open_one in session.scalars(select(Backfill)).all():
            open_one.completed_at = datetime.now(UTC)
    return found | {"failed": backfill("failed"), "backwards": backfill("completed", reverse=True)}


def listened() -> dict[str, Any]:
    """What the listener makes of runs that begin and end."""
    automatic_id = f"asset_triggered__{SNAPSHOTS[0]}"
    automatic(SNAPSHOTS[0], DagRunState.QUEUED)
    backfill("none")
    found: dict[str, Any] = {}
    with create_session() as session:
        for run in session.scalars(select(DagRun).order_by(DagRun.id)).all():
            run.set_state(DagRunState.RUNNING)
            run.notify_dagrun_state_changed(msg="started")
            found.setdefault("conf", {})[run.run_type] = run.conf
            run.dag = serialized(session)
            assert run.created_dag_version_id
            run.verify_integrity(session=session, dag_version_id=run.created_dag_version_id)
            trained = run.get_task_instance("train", session=session)
            found.setdefault("weights", {})[run.run_type] = trained.priority_weight  # type: ignore[union-attr]
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.run_id == automatic_id)).one()
        for task, key, words in [("train", "error", "out of memory"), ("rollback", "error", "rolled back; v3 serves")]:
            XComModel.set(
                key=key, value=words, task_id=task, dag_id=DAG_ID, run_id=run.run_id, map_index=-1, session=session
            )
        run.note = "a person's own"
        run.set_state(DagRunState.FAILED)
        run.notify_dagrun_state_changed(msg="task_failure")
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.run_id == automatic_id)).one()
        found["failed"] = run.note
        XComModel.set(
            key="outcome", value="kept champion: 97.1 % against 97.4 %", task_id="keep_champion", dag_id=DAG_ID,
            run_id=run.run_id, map_index=-1, session=session,
        )  # fmt: skip
        run.set_state(DagRunState.SUCCESS)
        run.notify_dagrun_state_changed(msg="success")
    with create_session() as session:
        found["good"] = session.scalars(select(DagRun).where(DagRun.run_id == automatic_id)).one().note
    return found


if __name__ == "__main__":
    sync()
    answer = {"backfills": backfills, "listened": listened}[os.environ["RETRAIN_RUNS"]]()
    print("ANSWER", json.dumps(answer, default=str), flush=True)

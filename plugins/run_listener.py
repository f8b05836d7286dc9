"""Hears what Airflow says of runs and tasks: notes a run's outcome on it, tells a backfill's run whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import run_reports
from airflow.listeners import hookimpl
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from include.run_outcome import ERROR, OUTCOME, sentence, with_outcome

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

# Key of a run's conf: the backfill that it belongs to. Tasks see the conf; the id itself Airflow does not tell them.
BACKFILL = "backfill"


class SaidByAnother(AirflowFailException):
    """Ends a task as failed where another has said why: the run's note and the alert have that one's words."""


def say_outcome(instance: Any, words: str) -> str:
    """What came of the run, in one line, for its note; returns the words."""
    instance.xcom_push(key=OUTCOME, value=words)
    return words


class RunListener:
    """Registered in `loaded/airlock_plugin.py`. The runs' hooks are called in the scheduler, within its transaction."""

    @hookimpl
    def on_dag_run_running(self, dag_run: DagRun, msg: str) -> None:
        """Tell a backfill's run which backfill it is of."""
        if dag_run.backfill_id is not None:
            begun = dag_run.backfill.created_at
            # Its number alone begins again with a new database of Airflow's.
            dag_run.conf = {**(dag_run.conf or {}), BACKFILL: f"{begun:%Y%m%dT%H%M%SZ}-{dag_run.backfill_id}"}

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun, msg: str) -> None:
        """Note what came of it, where a task has said so."""
        said = _said(dag_run, OUTCOME)
        if said:
            dag_run.note = with_outcome(dag_run.note, said[-1][1])
        run_reports.ended_well(dag_run.dag_id, said[-1][1] if said else "")

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun, msg: str) -> None:
        """Note which task failed, and its own sentence."""
        said = _said(dag_run, ERROR)
        outcome = "{} failed: {}".format(*said[-1]) if said else f"failed without a word ({msg})"
        dag_run.note = with_outcome(dag_run.note, outcome)
        run_reports.failed(dag_run.dag_id, dag_run.run_id, said[-1][0] if said else None, outcome)

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Keep the error's sentence, which is else in the log alone. Called in the task's own process."""
        said = error is None or isinstance(error, SaidByAnother)
        if isinstance(task_instance, RuntimeTaskInstance) and not said:
            task_instance.xcom_push(key=ERROR, value=sentence(error))


def _said(dag_run: DagRun, key: str) -> list[tuple[str, str]]:
    """Task and words of the run's XComs with this key, the newest last."""
    from airflow.models.xcom import XComModel  # the scheduler has it already; a task's process must not load it
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return []
    query = XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_run.dag_id, key=key)
    found: list[Any] = list(session.scalars(query))
    ordered = sorted(found, key=lambda one: one.timestamp)
    return [(one.task_id, str(XComModel.deserialize_value(one))) for one in ordered]

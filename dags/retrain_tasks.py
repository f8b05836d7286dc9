"""The tasks of a retrain that run in Airflow's own process: each one step of `include`.

What is much to import is imported where it is used: reading the DAG needs none of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from run_listener import BACKFILL, SaidByAnother, say_outcome
from superseding import skip_if_superseded

from dags.no_retry import no_retry
from include import deployment, snapshots
from include.candidates import DeployError
from include.locked_objects import LockError
from include.project import PROJECTS_FOLDER, Project, load
from include.releases import ReleaseError
from include.settings import get_settings
from include.train_result import TrainResultError, read_train_result

if TYPE_CHECKING:
    from include.backfills import Backfills

log = logging.getLogger(__name__)

# What puts the old release back must not be given up after the project's few retries.
ROLLBACK_RETRIES = 10
RELEASE_STEPS = ("deploy", "verify", "promote")

WHY = {
    "asset_triggered": "the dataset has changed",
    "backfill": "a backfill over the dataset's snapshots",
    "manual": "started by hand",
}


@task
def choose_snapshot(project: str) -> dict[str, str | None]:
    """The snapshot to train on, the partition key's or the newest; who made this run, and why; its backfill."""
    context = get_current_context()
    run = context["dag_run"]
    with no_retry(snapshots.UnknownSnapshot):
        known = snapshots.snapshot_ids(get_settings(), project)
        chosen = snapshots.choose(known, run.partition_key, project)
    log.info("snapshot %s, %s", chosen, "by the partition key" if run.partition_key else "the newest")
    skip_if_superseded(context, project, chosen)
    kind, backfill = str(run.run_type.value), (run.conf or {}).get(BACKFILL)
    return {
        "snapshot_id": chosen,
        "reason": context["params"]["reason"] or WHY.get(kind, kind),
        "triggered_by": run.triggering_user_name or "airlock",
        BACKFILL: backfill,
        "parent_run_id": _backfills().parent(project, backfill) if backfill else None,
    }


@task
def register(project: str) -> dict[str, Any]:
    """Check what the trainer left, make its model version, point `challenger` at it."""
    from include.real_world import locked_objects, registry
    from include.registry import RegistryError

    settings = get_settings()
    with no_retry(TrainResultError, RegistryError, LockError):
        instance = get_current_context()["ti"]
        trained = read_train_result(instance.xcom_pull(task_ids="train"))
        registered = registry(settings).register(project, trained, locked_objects(settings))
    if parent := instance.xcom_pull(task_ids="choose_snapshot")["parent_run_id"]:
        _backfills().plot(parent, trained.snapshot_id, registered.provenance.accuracy)
    return registered.model_dump(mode="json")


@task
def keep_champion() -> str:
    """The challenger is not released: say why, and end well."""
    instance = get_current_context()["ti"]
    reason: str = instance.xcom_pull(task_ids="gate")["reason"]
    log.info("%s", reason)
    return say_outcome(instance, reason)


@task
def verify(project: str) -> str:
    """Watch the new release under the traffic, while the old one stands by; worse: the traffic goes back at once."""
    from include.real_world import real_world

    with no_retry(DeployError, ReleaseError):
        seen = deployment.verify(real_world(), _project(project), _deployed()["release_id"])
    log.info("%s", seen)
    return seen


@task
def promote(project: str) -> str:
    """The new release is what serves; the champion's alias moves, the old containers go."""
    from include.real_world import real_world

    deployed = _deployed()
    with no_retry(ReleaseError):
        deployment.promote(real_world(), _project(project), deployed["release_id"])
    return say_outcome(get_current_context()["ti"], f"{deployed['release_id']} serves, {deployed['reason']}")


@task(trigger_rule="one_failed", retries=ROLLBACK_RETRIES)
def rollback(project: str) -> None:
    """Give up what this run was trying, whichever step failed.

    Ends as failed itself: a last task that succeeds would turn the whole run green.
    """
    from include.real_world import real_world

    instance = get_current_context()["ti"]
    steps, run_id = ["approve", *RELEASE_STEPS], instance.run_id
    states = instance.get_task_states(dag_id=instance.dag_id, task_ids=steps, run_ids=[run_id])[run_id]
    if states.get("approve") == "failed":
        # Of the last tasks, `keep_champion` was skipped by the gate: were this one skipped too, the run would be green.
        raise SaidByAnother("approve failed (see its log): nothing was released")
    failed = [step for step in RELEASE_STEPS if states.get(step) == "failed"]
    if not failed:
        raise AirflowSkipException("the run failed before its release began: nothing to roll back")
    cause = f"{' and '.join(failed)} failed"
    done = deployment.rollback(real_world(), _project(project), instance.run_id, cause)
    raise AirflowFailException(f"{cause} (see its log): {done}")


def _backfills() -> Backfills:
    from mlflow import MlflowClient

    from include.backfills import Backfills
    from include.real_world import records

    settings = get_settings()
    return Backfills(MlflowClient(tracking_uri=settings.mlflow_url), records(settings))


def _project(name: str) -> Project:
    return load(PROJECTS_FOLDER / f"{name}.yaml")


def _deployed() -> dict[str, Any]:
    deployed: dict[str, Any] = get_current_context()["ti"].xcom_pull(task_ids="deploy")
    return deployed

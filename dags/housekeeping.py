"""`airlock__housekeeping`: what tasks have left is tidied up; old weights are reported, and removed when asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from run_listener import say_outcome

from include.container_reaper import GOES_ON
from include.containers import TaskInstance
from include.settings import get_settings

log = logging.getLogger(__name__)

KEEP_DAYS = 90

DOC = """
### Tidies up

**What starts it:** the clock, once a day, or a person (Trigger).

**What it leaves:** task containers whose task has ended are removed, and MLflow runs that are RUNNING though their task
has ended are KILLED. Weights older than `keep_days` that nothing points at are reported with their bytes; with `delete`
they are removed from the DVC remote, and their MLflow runs get the tag `weights_removed`. What serves, what
`airlock__rollback` may put back, `champion` and `challenger` are never touched.

**When it fails:** the log of the failed task says what could not be reached; the next run does it all.
"""


def housekeeping_dag(dag_id: str) -> DAG:
    """The daily tidying up."""
    with DAG(
        dag_id,
        schedule=timedelta(days=1),
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params={
            "delete": Param(False, type="boolean", description="Remove the old weights. Off: only report them."),
            "keep_days": Param(
                KEEP_DAYS, type="integer", minimum=1, maximum=36_500, description="Weights younger than this stay."
            ),
        },
        default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
        description="What tasks have left is tidied up; old weights are reported, or removed",
        doc_md=DOC,
        tags=["airlock"],
    ) as dag:
        containers() >> mlflow_runs() >> weights()
    return dag


@task
def containers() -> list[str]:
    """Remove the containers that no task follows; their names."""
    import docker

    from include import housekeeping

    client = docker.APIClient(base_url=get_settings().docker_url)
    found = housekeeping.orphans(client, _goes_on, datetime.now(UTC))
    housekeeping.remove_orphans(client, found)
    names = [orphan.name for orphan in found]
    log.info("removed %d containers that no task follows: %s", len(names), ", ".join(names) or "none")
    return names


@task
def mlflow_runs() -> list[str]:
    """Close the MLflow runs that no task follows; their ids."""
    from mlflow import MlflowClient

    from include import housekeeping

    client = MlflowClient(tracking_uri=get_settings().mlflow_url)
    found = housekeeping.abandoned_runs(client, _goes_on, datetime.now(UTC))
    housekeeping.close_runs(client, found)
    ids = [str(run.info.run_id) for run in found]
    log.info("closed %d MLflow runs that no task follows: %s", len(ids), ", ".join(ids) or "none")
    return ids


@task
def weights() -> dict[str, Any]:
    """Report the weights that nothing points at, or remove them."""
    from mlflow import MlflowClient

    from include import housekeeping, s3
    from include.real_world import releases

    context: Any = get_current_context()
    delete, keep = context["params"]["delete"], timedelta(days=context["params"]["keep_days"])
    settings, before = get_settings(), datetime.now(UTC) - keep
    mlflow = MlflowClient(tracking_uri=settings.mlflow_url)
    store = s3.client(settings, settings.identity("trainer"))
    released = releases(settings)
    pointed_at = housekeeping.spared(mlflow, released, released.projects())
    old = housekeeping.old_runs(mlflow, pointed_at, before)
    objects = housekeeping.weights(store, settings.dvc_bucket)
    found = housekeeping.removable(objects, mlflow, pointed_at, old, before)
    if delete:
        housekeeping.remove_weights(store, settings.dvc_bucket, mlflow, found, old)
    for weight in found:
        log.info("%s %s (%d bytes)", "removed" if delete else "would remove", weight.key, weight.bytes)
    report = {"runs": len(old), "objects": len(found), "bytes": sum(one.bytes for one in found), "deleted": delete}
    say_outcome(context["ti"], _in_words(report))
    return report


def _in_words(report: Mapping[str, Any]) -> str:
    what = f"{report['objects']} objects with weights of {report['runs']} old runs, {report['bytes'] / 1e6:,.1f} MB"
    return f"removed {what}" if report["deleted"] else f"could remove {what}: trigger it with `delete`"


def _goes_on(instance: TaskInstance) -> bool:
    """Whether a task instance may still come back for what it has left."""
    found = get_current_context()["ti"].get_task_states(
        dag_id=instance.dag_id, task_ids=[instance.task_id], run_ids=[instance.run_id]
    )
    states = found.get(instance.run_id, {})
    # Mapped tasks are told by index behind the task's id.
    return any(state in GOES_ON for name, state in states.items() if name.startswith(instance.task_id))

"""`airlock__housekeeping`: what tasks have left is tidied up; what is old is reported, and removed when asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from container_operator import ContainerOperator
from run_listener import say_outcome

from include.container_reaper import GOES_ON
from include.containers import TaskInstance
from include.project import PROJECTS_FOLDER, load_all
from include.settings import get_settings

log = logging.getLogger(__name__)

KEEP_DAYS = 90
# Named to a container by one variable, which has a limit; what is left, the next run removes.
SNAPSHOTS_AT_ONCE = 2000
# Key of the XCom that names them.
SNAPSHOTS = "old_snapshots"
# As which the container appears that works for all projects.
DEPLOYMENT = "airlock"
MEMORY_BYTES = 4 << 30

DOC = """
### Tidies up

**What starts it:** the clock, once a day, or a person (Trigger).

**What it leaves:** task containers whose task has ended are removed, and MLflow runs that are RUNNING though their task
has ended are KILLED. What is older than `keep_days` and nothing points at is reported with its bytes, and removed with
`delete`: weights, whose MLflow runs then get the tag `weights_removed`; snapshots that no run but such ones has used;
contents of the DVC remote `data` that no snapshot has (so also those that a person has pushed there for datasets of
their own); and what a training on this host has not used since. What serves, what `airlock__rollback` may put back,
`champion`, `challenger`, and a project's newest snapshot are never touched.

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
            "delete": Param(False, type="boolean", description="Remove what is old. Off: only report it."),
            "keep_days": Param(
                KEEP_DAYS, type="integer", minimum=1, maximum=36_500, description="What is younger than this stays."
            ),
        },
        default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
        description="What tasks have left is tidied up; what is old is reported, or removed",
        doc_md=DOC,
        tags=["airlock"],
    ) as dag:
        sweep = ContainerOperator(
            task_id="contents",
            doc_md="Removes old snapshots, contents that no snapshot has, and what this host has not used for long.",
            command=["sweep"],
            project=DEPLOYMENT,
            train_bucket=DEPLOYMENT,
            image=f"trainer:{_any_trainer()}",
            memory_bytes=MEMORY_BYTES,
            environment={
                "OLD_SNAPSHOTS": f"{{{{ ti.xcom_pull(task_ids='weights', key='{SNAPSHOTS}') | tojson }}}}",
                "KEEP_DAYS": "{{ params.keep_days }}",
                "DELETE": "{{ params.delete }}",
            },
        )
        containers() >> mlflow_runs() >> weights() >> sweep >> report()
    return dag


def _any_trainer() -> str:
    """A trainer image that is there: what is asked of it, all can."""
    projects = load_all(PROJECTS_FOLDER).usable
    return next((projects[name].trainer for name in sorted(projects)), "default")


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
    """Report the weights that nothing points at, or remove them; name the snapshots that are old."""
    from mlflow import MlflowClient

    from include import housekeeping, s3
    from include.real_world import records, releases

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
    snapshots = housekeeping.old_snapshots(records(settings).keys("snapshots/"), mlflow, pointed_at, old, before)
    context["ti"].xcom_push(key=SNAPSHOTS, value=snapshots[:SNAPSHOTS_AT_ONCE])
    if delete:
        housekeeping.remove_weights(store, settings.dvc_bucket, mlflow, found, old)
    for weight in found:
        log.info("%s %s (%d bytes)", "removed" if delete else "would remove", weight.key, weight.bytes)
    return {"runs": len(old), "objects": len(found), "bytes": sum(one.bytes for one in found), "deleted": delete}


@task
def report() -> str:
    """Say in one line what there was."""
    instance: Any = get_current_context()["ti"]
    return say_outcome(
        instance, in_words(instance.xcom_pull(task_ids="weights"), instance.xcom_pull(task_ids="contents"))
    )


def in_words(weights: Mapping[str, Any], contents: Mapping[str, Any]) -> str:
    """What was removed, or could be."""
    what = (
        f"weights of {weights['runs']} runs ({weights['objects']} objects, {_mb(weights['bytes'])}), "
        f"{contents['snapshots']} snapshots with {contents['objects']} contents ({_mb(contents['bytes'])}), "
        f"{contents['cache_objects']} contents of this host's cache ({_mb(contents['cache_bytes'])})"
    )
    return f"removed {what}" if contents["deleted"] else f"could remove {what}: trigger it with `delete`"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _goes_on(instance: TaskInstance) -> bool:
    """Whether a task instance may still come back for what it has left."""
    found = get_current_context()["ti"].get_task_states(
        dag_id=instance.dag_id, task_ids=[instance.task_id], run_ids=[instance.run_id]
    )
    states = found.get(instance.run_id, {})
    # Mapped tasks are told by index behind the task's id.
    return any(state in GOES_ON for name, state in states.items() if name.startswith(instance.task_id))

"""`<project>__retrain`: one snapshot's way from training to serving."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, literal
from approve_operator import ApproveOperator
from automatic_first import AutomaticFirst
from container_operator import ContainerOperator
from deploy_operator import DeployOperator
from evaluate_operator import EvaluateOperator
from gate_operator import GateOperator
from snapshot_timetable import SnapshotTimetable
from train_operator import TrainOperator

from dags.assets import snapshots_of
from dags.retrain_tasks import choose_snapshot, keep_champion, promote, register, rollback, verify
from include.project import Project
from include.releases import CANDIDATE_LASTS

# An answer within a second of the question costs an attempt: Airflow's scheduler has not yet seen the asking process
# end, takes its end for a failure, and asks again.
APPROVE_RETRIES = 10

DOC = """
### Trains, compares and releases the models of `{project}`

**What starts it:** a new snapshot of the bucket `{bucket}` (from `{project}__watch`), a person (Trigger), or a
backfill. The partition key (in the form under Advanced Options) is the snapshot's id; left empty, the newest is taken.
The form's fields: empty means what `include/projects/{project}.yaml` says; for a backfill, Airflow sends them only with
"Override parameters on existing runs" ticked.

**Who goes first:** a backfill's training waits while another's does. An automatic run that has waited until there was
a newer snapshot ends without training; its note says so. Runs by hand and of backfills always train.

**What it leaves:** an MLflow run and a version of the model `{project}` with the alias `challenger`, its weights locked
in the DVC remote. Better than the champion: a release behind `/{project}/predict`, and the alias `champion` moves.
Not better: `keep_champion` says why, and the run is green. A backfill compares, and releases only where its conf has
`deploy: yes`; its runs are children of one MLflow run, whose plot is the accuracy over dataset time. The run's note
has the outcome in one line.

**When it fails:** what served goes on serving. The failed task's log ends with the thing, the cause and the next step.
`approve`, where the project asks for it, waits for a person, and rejects what nobody has approved in time.
`gpu_check`: the host's driver or container toolkit. `train`: the memory, or the dataset, which the task's link "Dataset
report" shows. `deploy`: the new containers; they are removed again. `verify`: the release was worse under its traffic,
which is back already; `rollback` says what serves, and the run stays failed. To go back later: `airlock__rollback`.
Clear a failed task to go on from there; after a rollback, clear `deploy`.
"""

# Of the operators; the others say it in their functions' docstrings.
TASK_DOCS = {
    "gpu_check": "Looks whether the host has what `device` asks for. Failed: it says what to install, or to set.",
    "train": "Trains, and locks the weights with DVC. A retry goes on from the last epoch; bad data fail at once.",
    "evaluate": "Scores challenger and champion on the same pictures, with the code that serves.",
    "gate": "Decides whether the challenger is better; its XCom has the reason.",
    "approve": "Waits for a person under Required Actions; what nobody has approved in time is not released.",
    "deploy": "Starts the new containers beside the old, proves them, moves the traffic. Failed: the old ones serve.",
}

RUN_ID = "{{ ti.xcom_pull(task_ids='register')['run_id'] }}"


def retrain_dag(dag_id: str, project: Project) -> DAG:
    """The retrain of one project."""
    trainer: dict[str, Any] = {
        "project": project.name,
        "train_bucket": project.bucket,
        "memory_bytes": project.memory_bytes,
        "image": f"trainer:{project.trainer}",
        "gpu": project.device == "cuda",
    }
    with DAG(
        dag_id,
        schedule=SnapshotTimetable(project=project.name, assets=snapshots_of(project.name)),
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=form(project),
        default_args={"retries": project.retries, "retry_delay": timedelta(seconds=project.retry_delay_seconds)},
        description=f"Trains {project.name} on a snapshot; what proves better serves",
        doc_md=DOC.format(project=project.name, bucket=project.bucket),
        tags=["airlock", project.name],
    ) as dag:
        gpu_check = ContainerOperator(
            task_id="gpu_check",
            doc_md=TASK_DOCS["gpu_check"],
            command=["check"],
            environment={"DEVICE": project.device},
            retries=0,
            **trainer,
        )
        train = TrainOperator(
            task_id="train",
            doc_md=TASK_DOCS["train"],
            environment=training(project),
            pool="gpu",
            weight_rule=AutomaticFirst(),
            execution_timeout=timedelta(minutes=project.deadline_minutes),
            **trainer,
        )
        evaluate = EvaluateOperator(
            task_id="evaluate", doc_md=TASK_DOCS["evaluate"], project=project, challenger_run_id=RUN_ID
        )
        gate = GateOperator(
            task_id="gate",
            doc_md=TASK_DOCS["gate"],
            evaluate="evaluate",
            thresholds=project.gate,
            accept="approve" if project.approval == "required" else "deploy",
            refuse="keep_champion",
        )
        deploy = DeployOperator(
            task_id="deploy",
            doc_md=TASK_DOCS["deploy"],
            project=project,
            challenger_run_id=RUN_ID,
            pool="deploy",
            retries=deploy_retries(project),
        )
        verified, promoted, rolled_back = (
            step.override(pool="deploy")(project.name) for step in (verify, promote, rollback)
        )

        choose_snapshot(project.name) >> gpu_check >> train >> register(project.name) >> evaluate >> gate
        gate >> keep_champion()
        if project.approval == "required":
            approve = ApproveOperator(
                task_id="approve",
                doc_md=TASK_DOCS["approve"],
                project=project,
                evaluate="evaluate",
                gate="gate",
                retries=APPROVE_RETRIES,
                retry_delay=timedelta(seconds=1),
            )
            gate >> approve >> deploy
        else:
            gate >> deploy
        deploy >> verified >> promoted
        [verified, promoted] >> rolled_back
    return dag


def deploy_retries(project: Project) -> int:
    """As many as outlast another run's candidate, for which a deploy has to wait."""
    lasts = CANDIDATE_LASTS + timedelta(seconds=project.trial_seconds)
    outlasting = lasts // timedelta(seconds=max(project.retry_delay_seconds, 1)) + 1
    return max(project.retries, outlasting)


def form(project: Project) -> dict[str, Param]:
    """The fields of the Trigger form; the partition key has its own."""
    what = "Empty: the project's, {}."
    learning_rate = "Ultralytics' choice" if project.learning_rate is None else project.learning_rate
    return {
        "epochs": Param(
            None, type=["null", "integer"], minimum=1, maximum=10_000, description=what.format(project.epochs)
        ),
        "learning_rate": Param(
            None, type=["null", "number"], exclusiveMinimum=0, maximum=1, description=what.format(learning_rate)
        ),
        "image_size": Param(
            None,
            type=["null", "integer"],
            minimum=32,
            maximum=2048,
            multipleOf=32,
            description=f"In pixels, a multiple of 32. {what.format(project.image_size)}",
        ),
        # No boolean: Airflow's form shows one that is empty as a switch that is off.
        "deploy": Param(
            None,
            type=["null", "string"],
            enum=[None, "yes", "no"],
            values_display={"null": "as usual", "yes": "yes", "no": "no"},
            description="Whether a model that the gate lets through is released. As usual: yes; in a backfill, no.",
        ),
        "reason": Param(
            None, type=["null", "string"], maxLength=500, description="Why this run is made; it is tagged with it."
        ),
    }


def training(project: Project) -> dict[str, Any]:
    """The environment of `train`, docs/contracts.md; the form's fields over the project's."""

    def chosen(field: str, own: object) -> str:
        return f"{{{{ {str(own)!r} if params.{field} is none else params.{field} }}}}"

    return {
        "SNAPSHOT_ID": "{{ ti.xcom_pull(task_ids='choose_snapshot')['snapshot_id'] }}",
        "REASON": "{{ ti.xcom_pull(task_ids='choose_snapshot')['reason'] }}",
        "TRIGGERED_BY": "{{ ti.xcom_pull(task_ids='choose_snapshot')['triggered_by'] }}",
        "BACKFILL": "{{ ti.xcom_pull(task_ids='choose_snapshot')['backfill'] or '' }}",
        "PARENT_RUN_ID": "{{ ti.xcom_pull(task_ids='choose_snapshot')['parent_run_id'] or '' }}",
        "DEVICE": project.device,
        "MODEL": project.model,
        "IMAGE_SIZE": chosen("image_size", project.image_size),
        "EPOCHS": chosen("epochs", project.epochs),
        "LEARNING_RATE": chosen("learning_rate", "" if project.learning_rate is None else project.learning_rate),
        "BATCH": str(project.batch),
        "SEED": str(project.seed),
        "TRAIN_ARGS": literal(json.dumps(project.train_args)),
        "VAL_SHARE": str(project.val_share),
        "MIN_IMAGES_PER_CLASS": str(project.min_images_per_class),
        "MAX_BAD_SHARE": str(project.max_bad_share),
        "PACKS": str(project.packs).lower(),
        "MLFLOW_OUTAGE_MINUTES": str(project.mlflow_outage_minutes),
        "TRAINER": project.trainer,
        "MEMORY_BYTES": str(project.memory_bytes),
    }

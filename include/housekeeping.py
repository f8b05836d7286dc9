"""What nothing needs any more: containers and MLflow runs that their tasks left, old weights and snapshots.

What serves, what may be put back, `champion`, `challenger` and everything young are never touched.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import docker
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from include.containers import TaskInstance, patiently, remove
from include.registry import CHALLENGER, CHAMPION, LOCKS
from include.releases import Releases
from include.settings import MODELS_REMOTE
from include.snapshots import SNAPSHOT_ID, taken_at

# A container, or a run, this young may belong to a task whose state is only about to be written.
YOUNG = timedelta(minutes=10)
PAGE = 1000
RUN_ID_TAG, DAG_ID_TAG, TASK_ID_TAG = "airflow_run_id", "airflow_dag_id", "airflow_task_id"
REMOVED_TAG, SNAPSHOT_TAG = "weights_removed", "snapshot_id"
MODELS = f"{MODELS_REMOTE}/files/md5/"

_RECORD = re.compile(rf"snapshots/([^/_][^/]*)/({SNAPSHOT_ID.pattern})\.json")

GoesOn = Callable[[TaskInstance], bool]


@dataclass(frozen=True)
class Orphan:
    """A container that no task follows."""

    id: str
    name: str


@dataclass(frozen=True)
class Weight:
    """A locked object in the DVC remote of the models."""

    key: str
    bytes: int
    modified_at: datetime

    @property
    def md5(self) -> str:
        """Its md5, which its key is made of."""
        return self.key.removeprefix(MODELS).replace("/", "")


@dataclass(frozen=True)
class Spared:
    """MLflow runs, md5s of weights, and snapshots that must stay."""

    runs: frozenset[str]
    md5s: frozenset[str]
    snapshots: frozenset[str] = frozenset()


def orphans(client: docker.APIClient, goes_on: GoesOn, now: datetime) -> list[Orphan]:
    """Task containers whose task has ended, or is known to Airflow no more. Raises DockerUnavailable."""
    labels = ["airlock.managed=true", "airlock.role=task"]
    found = []
    for row in patiently(lambda: client.containers(all=True, filters={"label": labels})):
        instance = _instance_of(row["Labels"])
        old = now - datetime.fromtimestamp(row["Created"], UTC) > YOUNG
        if old and not goes_on(instance):
            found.append(Orphan(row["Id"], row["Names"][0].lstrip("/")))
    return found


def remove_orphans(client: docker.APIClient, found: Iterable[Orphan]) -> None:
    """Remove them, running or not."""
    for orphan in found:
        remove(client, orphan.id)


def abandoned_runs(client: MlflowClient, goes_on: GoesOn, now: datetime) -> list[Run]:
    """MLflow runs that are RUNNING though their task has ended: their container was killed before it could say so."""
    found = []
    for run in _runs(client, "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        begun = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        if DAG_ID_TAG not in tags or now - begun <= YOUNG:
            continue  # a person's own, or one that has just begun
        if not goes_on(TaskInstance(tags[DAG_ID_TAG], tags[RUN_ID_TAG], tags[TASK_ID_TAG])):
            found.append(run)
    return found


def close_runs(client: MlflowClient, runs: Iterable[Run]) -> None:
    """End them as KILLED."""
    for run in runs:
        client.set_terminated(run.info.run_id, "KILLED")


def spared(client: MlflowClient, releases: Releases, projects: Iterable[str]) -> Spared:
    """What is pointed at: by releases that serve, are tried or may be put back, and by the registry's aliases."""
    runs: set[str] = set()
    md5s: set[str] = set()
    snapshots: set[str] = set()
    for project in projects:
        state, _ = releases.state(project)
        for release in {*state.promoted_ever(), *state.wanted.values()}:
            record = releases.record(project, release)
            runs.add(record.run_id)
            # A person may have deleted the run in MLflow; what serves needs these all the same.
            md5s |= {record.dvc_hash, record.dvc_hash_onnx, record.dvc_hash_golden}
            snapshots.add(record.snapshot_id)
    for model in client.search_registered_models():
        named = [version for alias, version in model.aliases.items() if alias in (CHAMPION, CHALLENGER)]
        runs |= {str(client.get_model_version(model.name, version).run_id) for version in named}
    return Spared(frozenset(runs), frozenset(md5s), frozenset(snapshots))


def old_runs(client: MlflowClient, pointed_at: Spared, before: datetime) -> list[Run]:
    """Runs with locked weights that ended before that time, and that nothing points at."""
    return [
        run
        for run in _runs(client, "attributes.status != 'RUNNING'")
        if "dvc_hash" in run.data.tags
        and REMOVED_TAG not in run.data.tags
        and run.info.run_id not in pointed_at.runs
        and datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC) < before
    ]


def removable(
    objects: Iterable[Weight], client: MlflowClient, pointed_at: Spared, old: Iterable[Run], before: datetime
) -> list[Weight]:
    """The objects that old runs alone have locked, or no run. A young one may be on its way to its run's tags."""
    kept = {tags[tag] for tags in _staying(client, old) for tag in LOCKS if tag in tags} | pointed_at.md5s
    return [one for one in objects if one.md5 not in kept and one.modified_at < before]


def old_snapshots(
    keys: Iterable[str], client: MlflowClient, pointed_at: Spared, old: Iterable[Run], before: datetime
) -> list[str]:
    """`<project>/<id>` of the snapshots that no run but old ones has used, the oldest first; `keys` are records' keys.

    A project's newest stays: the next is compared with it.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        if match := _RECORD.fullmatch(key):
            ids[match[1]].append(match[2])
    used = {tags[SNAPSHOT_TAG] for tags in _staying(client, old) if SNAPSHOT_TAG in tags} | pointed_at.snapshots
    return sorted(
        (
            f"{project}/{one}"
            for project, found in ids.items()
            for one in sorted(found)[:-1]
            if one not in used and taken_at(one) < before
        ),
        key=lambda name: name.rpartition("/")[2],
    )


def weights(s3_client: Any, bucket: str) -> Iterator[Weight]:
    """Every locked object of the models' remote."""
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=MODELS):
        for row in page.get("Contents", ()):
            yield Weight(row["Key"], row["Size"], row["LastModified"])


def remove_weights(s3_client: Any, bucket: str, client: MlflowClient, found: list[Weight], old: list[Run]) -> None:
    """Remove the objects, and say so on the runs first: a run whose weights are gone must never look whole."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for run in old:
        client.set_tag(run.info.run_id, REMOVED_TAG, today)
    for weight in found:
        s3_client.delete_object(Bucket=bucket, Key=weight.key)


def _staying(client: MlflowClient, old: Iterable[Run]) -> list[dict[str, str]]:
    """The tags of the runs whose weights stay."""
    going = {run.info.run_id for run in old}
    tags = [run.data.tags for run in _runs(client, "") if run.info.run_id not in going]
    return [one for one in tags if REMOVED_TAG not in one]


def _runs(client: MlflowClient, wanted: str) -> Iterator[Run]:
    experiments = [found.experiment_id for found in client.search_experiments(view_type=ViewType.ALL)]
    token = None
    while True:
        page = client.search_runs(experiments, wanted, ViewType.ACTIVE_ONLY, PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _instance_of(labels: dict[str, str]) -> TaskInstance:
    return TaskInstance(
        labels["airlock.dag_id"], labels["airlock.run_id"], labels["airlock.task_id"], int(labels["airlock.map_index"])
    )

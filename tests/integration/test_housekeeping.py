"""Old weights go from a real S3 server, by what a real MLflow knows of them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from include import housekeeping
from include.housekeeping import REMOVED_TAG
from include.registry import CHALLENGER, LOCKS
from tests.integration.mlflow_fixture import running_mlflow
from tests.integration.s3_servers import S3Server

NOW = datetime.now(UTC)
# S3 says itself when an object was written: so here the future is what counts as young.
BEFORE = NOW + timedelta(days=1)
OLD, YOUNG = NOW, NOW + timedelta(days=2)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """A running MLflow."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield MlflowClient(server.url)


def test_weights_of_old_runs_go_and_all_else_stays_and_the_runs_say_so(
    client: MlflowClient, s3_server: S3Server
) -> None:
    store, bucket, project = s3_server.client(), f"dvc-{uuid.uuid4().hex[:8]}", f"p{uuid.uuid4().hex[:8]}"
    store.create_bucket(Bucket=bucket)
    experiment = client.create_experiment(project)
    client.create_registered_model(project)

    def trained(name: str, at: datetime, **same: str) -> str:
        locks = {tag: same.get(tag) or locked(f"{name} {tag}") for tag in LOCKS}
        moment = round(at.timestamp() * 1000)
        run = client.create_run(experiment, start_time=moment, tags={**locks, "snapshot_id": snapshot(name)})
        client.set_terminated(run.info.run_id, end_time=moment)
        return str(run.info.run_id)

    def locked(text: str) -> str:
        md5 = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        store.put_object(Bucket=bucket, Key=f"models/files/md5/{md5[:2]}/{md5[2:]}", Body=text.encode())
        return md5

    shared = locked("a division that two runs have")
    old = trained("old", OLD, dvc_hash_split=shared)
    trained("young", YOUNG, dvc_hash_split=shared)
    challenger = trained("challenger", OLD)
    version = client.create_model_version(project, f"s3://{bucket}/models/a-file", challenger).version
    client.set_registered_model_alias(project, CHALLENGER, version)
    locked("of no run")

    no_releases: Any = SimpleNamespace(state=lambda _: None, record=lambda *_: None)
    pointed_at = housekeeping.spared(client, no_releases, [])
    runs = housekeeping.old_runs(client, pointed_at, BEFORE)
    assert [run.info.run_id for run in runs] == [old]
    found = housekeeping.removable(housekeeping.weights(store, bucket), client, pointed_at, runs, BEFORE)
    assert len(found) == len(LOCKS) - 1 + 1
    records = [f"snapshots/{project}/{snapshot(name)}.json" for name in ("old", "young", "challenger", "newest")]
    assert housekeeping.old_snapshots(records, client, pointed_at, runs, BEFORE) == [f"{project}/{snapshot('old')}"]

    housekeeping.remove_weights(store, bucket, client, found, runs)
    assert client.get_run(old).data.tags[REMOVED_TAG]
    left = list(housekeeping.weights(store, bucket))
    assert len(left) == 1 + 2 * len(LOCKS) - 1
    assert shared in {weight.md5 for weight in left}
    again = housekeeping.old_runs(client, pointed_at, BEFORE)
    assert (again, housekeeping.removable(left, client, pointed_at, again, BEFORE)) == ([], [])
    assert housekeeping.old_snapshots(records, client, pointed_at, again, BEFORE) == [f"{project}/{snapshot('old')}"]


def snapshot(name: str) -> str:
    """A snapshot id of its own for each name; "newest" is the newest."""
    day = ("old", "young", "challenger", "newest").index(name) + 1
    return f"2026090{day}T101500000Z-{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]}"

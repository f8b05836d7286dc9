"""Registration on a real MLflow and a real S3 server."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow import MlflowClient

from include.locked_objects import LockedObjects, LockError
from include.registry import Registry, RegistryError, RegistryUnavailable
from include.s3 import Bucket
from include.train_result import TrainResult
from tests.integration.mlflow_fixture import running_mlflow
from tests.integration.s3_servers import S3Server


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running MLflow."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server.url


@dataclass
class Trained:
    """A finished run with its locked objects, as the trainer leaves it."""

    project: str
    result: TrainResult
    mlflow: MlflowClient
    registry: Registry
    locked: LockedObjects
    s3: Any
    bucket: str

    def key(self, md5: str) -> str:
        return f"models/files/md5/{md5[:2]}/{md5[2:]}"


@pytest.fixture
def trained(mlflow_url: str, s3_server: S3Server) -> Trained:
    client, project, bucket = s3_server.client(), f"p{uuid.uuid4().hex[:8]}", f"dvc-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    mlflow = MlflowClient(mlflow_url)
    run_id = mlflow.create_run(mlflow.create_experiment(project)).info.run_id
    locks = {}
    for tag in ("dvc_hash", "dvc_hash_onnx", "dvc_hash_golden", "dvc_hash_split"):
        content = f"{project} {tag}".encode() * 1000
        locks[tag] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        key = f"models/files/md5/{locks[tag][:2]}/{locks[tag][2:]}"
        client.put_object(Bucket=bucket, Key=key, Body=content)
    result = TrainResult(
        run_id=run_id,
        snapshot_id="20261123T160000000Z-c71581aa",
        snapshot_md5=f"{'c' * 32}.dir",
        metrics={"accuracy_top1": 0.97},
        classes=("0", "1"),
        **locks,
    )
    tags = {"project": project, "git_commit": "abc", **locks}
    tags |= {"snapshot_id": result.snapshot_id, "snapshot_md5": result.snapshot_md5}
    for name, value in tags.items():
        mlflow.set_tag(run_id, name, value)
    mlflow.log_metric(run_id, "accuracy_top1", 0.97)
    mlflow.set_terminated(run_id, "FINISHED")
    locked = LockedObjects(Bucket(client, bucket))
    return Trained(project, result, mlflow, Registry(mlflow_url), locked, client, bucket)


def test_a_finished_run_becomes_the_challenger_with_its_tags(trained: Trained) -> None:
    registered = trained.registry.register(trained.project, trained.result, trained.locked)
    version = trained.mlflow.get_model_version_by_alias(trained.project, "challenger")
    assert (registered.model_version, version.run_id) == (str(version.version), trained.result.run_id)
    assert version.tags["dvc_hash"] == trained.result.dvc_hash
    assert version.tags["git_commit"] == "abc"
    assert (registered.provenance.git_commit, registered.provenance.accuracy) == ("abc", 0.97)
    assert version.source == trained.locked.address(trained.result.dvc_hash)
    assert trained.registry.champion(trained.project) is None


def test_registering_a_run_again_gives_the_same_version(trained: Trained) -> None:
    versions = {trained.registry.register(trained.project, trained.result, trained.locked) for _ in range(3)}
    assert {registered.model_version for registered in versions} == {"1"}


def test_champion_moves_to_a_version(trained: Trained) -> None:
    assert trained.registry.champion(trained.project) is None, "no such model yet"
    registered = trained.registry.register(trained.project, trained.result, trained.locked)
    assert trained.registry.set_champion(trained.project, registered.model_version)
    assert trained.registry.champion(trained.project) == registered.model_version


def test_a_version_that_a_person_deleted_cannot_be_champion(trained: Trained) -> None:
    registered = trained.registry.register(trained.project, trained.result, trained.locked)
    trained.mlflow.delete_model_version(trained.project, registered.model_version)
    assert not trained.registry.set_champion(trained.project, registered.model_version)
    assert trained.registry.champion(trained.project) is None


def test_a_weights_object_altered_in_the_store_is_refused_though_its_name_is_right(trained: Trained) -> None:
    trained.s3.put_object(Bucket=trained.bucket, Key=trained.key(trained.result.dvc_hash), Body=b"other weights")
    with pytest.raises(LockError, match="the weights object was altered in the store"):
        trained.registry.register(trained.project, trained.result, trained.locked)
    assert not trained.mlflow.search_model_versions(f"name='{trained.project}'")


def test_a_missing_object_is_refused(trained: Trained) -> None:
    trained.s3.delete_object(Bucket=trained.bucket, Key=trained.key(trained.result.dvc_hash_onnx))
    with pytest.raises(LockError, match=r"the ONNX weights object s3://.* is missing"):
        trained.registry.register(trained.project, trained.result, trained.locked)


def test_a_run_that_did_not_finish_is_refused(trained: Trained) -> None:
    trained.mlflow.set_terminated(trained.result.run_id, "FAILED")
    with pytest.raises(RegistryError, match="its status is FAILED, not FINISHED"):
        trained.registry.register(trained.project, trained.result, trained.locked)


def test_a_run_whose_tags_are_others_than_the_result_is_refused_with_every_difference(trained: Trained) -> None:
    trained.mlflow.set_tag(trained.result.run_id, "dvc_hash", "0" * 32)
    trained.mlflow.delete_tag(trained.result.run_id, "snapshot_id")
    with pytest.raises(RegistryError, match=r"its tag dvc_hash is 0{32}, .*; its tag snapshot_id is missing, "):
        trained.registry.register(trained.project, trained.result, trained.locked)


def test_a_run_that_mlflow_does_not_know_is_refused(trained: Trained) -> None:
    unknown = trained.result.model_copy(update={"run_id": "0" * 32})
    with pytest.raises(RegistryError, match=r"MLflow knows no run 0{32}"):
        trained.registry.register(trained.project, unknown, trained.locked)


def test_mlflow_down_is_said_with_its_address(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryUnavailable, match=r"reading the run failed at MLflow http://127\.0\.0\.1:1 "):
        Registry("http://127.0.0.1:1").register(trained.project, trained.result, trained.locked)

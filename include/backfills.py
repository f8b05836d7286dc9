"""The MLflow run that a backfill's runs are children of: accuracy over dataset time as one plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from include.registry import ACCURACY, RegistryUnavailable
from include.s3 import ObjectChanged, Stored
from include.snapshots import taken_at

TAG = "backfill"
T = TypeVar("T")


class Objects(Protocol):
    """What is needed of a bucket; include.s3.Bucket has it."""

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        ...

    def create(self, key: str, body: bytes) -> str:
        """Write a new object, or raise ObjectChanged."""
        ...


class Backfills:
    """The parent runs of backfills. Raises RegistryUnavailable where MLflow does not answer, StorageError for S3."""

    def __init__(self, client: MlflowClient, objects: Objects) -> None:
        self._client = client
        self._objects = objects

    def parent(self, project: str, backfill: str) -> str:
        """The parent's MLflow run id; the first run of the backfill that asks makes it.

        Which one it is, a record in the bucket says, written once: two runs that ask at the same time get the same.
        """
        key = f"backfills/{project}/{backfill}.json"
        if stored := self._objects.read(key):
            return str(json.loads(stored.body)["run_id"])
        run_id = self._create(project, backfill)
        try:
            self._objects.create(key, json.dumps({"run_id": run_id}).encode())
        except ObjectChanged:
            _ask(lambda: self._client.delete_run(run_id))
            return self.parent(project, backfill)
        return run_id

    def plot(self, parent: str, snapshot_id: str, accuracy: float) -> None:
        """Put the accuracy on one snapshot into the parent's plot; its time, and step in seconds, is the snapshot's."""
        at = taken_at(snapshot_id).timestamp()
        _ask(lambda: self._client.log_metric(parent, ACCURACY, accuracy, timestamp=round(at * 1000), step=int(at)))

    def _create(self, project: str, backfill: str) -> str:
        def create() -> str:
            experiment = self._client.get_experiment_by_name(project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(project)
            run = self._client.create_run(
                number, run_name=f"backfill {backfill}", tags={"project": project, TAG: backfill}
            )
            # No process keeps it open: its children come and go.
            self._client.set_terminated(run.info.run_id)
            return str(run.info.run_id)

        return _ask(create)


def _ask(call: Callable[[], T]) -> T:
    try:
        return call()
    except MlflowException as error:
        words = " ".join(str(error).split())[:300]
        raise RegistryUnavailable(f"MLflow did not take the backfill's parent run ({words}): try again") from error

"""MLflow's model registry: which version is the challenger, which the champion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException, RestException

from include.locked_objects import LockedObjects
from include.train_result import Provenance, Registered, TrainResult

CHALLENGER, CHAMPION = "challenger", "champion"

# Tag of the run, and the words for the object it locks.
LOCKS: Mapping[str, str] = {
    "dvc_hash": "weights",
    "dvc_hash_onnx": "ONNX weights",
    "dvc_hash_golden": "golden predictions",
    "dvc_hash_split": "split",
}
ACCURACY = "accuracy_top1"
COMPARED_TAGS = (*LOCKS, "snapshot_id", "snapshot_md5")
NOT_FOUND_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


class RegistryError(Exception):
    """The run cannot be registered; the message says why."""


class RegistryUnavailable(Exception):
    """MLflow could not be asked."""


class _Unknown(RegistryUnavailable):
    """MLflow answered that it does not know what it was asked about."""


class Registry:
    """MLflow's registry, one registered model a project. Raises RegistryUnavailable where MLflow does not answer."""

    def __init__(self, tracking_uri: str, client: MlflowClient | None = None) -> None:
        self._uri = tracking_uri
        self._client = client or MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def register(self, project: str, result: TrainResult, locked: LockedObjects) -> Registered:
        """Make the run's model version and point `challenger` at it; again for the same run: the same version.

        Raises RegistryError where MLflow knows the run otherwise than the result says, and LockError where an object
        in the store is not the one that was locked.
        """
        run = self._check_run(project, result)
        tags = {tag: value for tag, value in run.data.tags.items() if not tag.startswith("mlflow.")}
        for tag, what in LOCKS.items():
            locked.verify(what, getattr(result, tag))
        self._ensure_model(project)
        version = self._version_of(project, result.run_id)
        if version is None:
            version = str(
                self._ask(
                    "creating a model version",
                    self._client.create_model_version,
                    name=project,
                    source=locked.address(result.dvc_hash),
                    run_id=result.run_id,
                    tags=tags,
                ).version
            )
        self._set_alias(project, CHALLENGER, version)
        provenance = Provenance(
            experiment_id=run.info.experiment_id,
            git_commit=tags.get("git_commit", ""),
            image_id=tags.get("image_id", ""),
            accuracy=run.data.metrics[ACCURACY],
        )
        return Registered(run_id=result.run_id, dvc_hash=result.dvc_hash, model_version=version, provenance=provenance)

    def champion(self, project: str) -> str | None:
        """The version that the alias `champion` names, or None."""
        try:
            ask = self._client.get_model_version_by_alias
            return str(self._ask("reading the alias `champion`", ask, project, CHAMPION).version)
        except _Unknown:
            return None

    def set_champion(self, project: str, version: str) -> bool:
        """Point the alias `champion` at a version; whether there is one: a person may have deleted it."""
        try:
            self._set_alias(project, CHAMPION, version)
        except _Unknown:
            return False
        return True

    def _check_run(self, project: str, result: TrainResult) -> Run:
        try:
            run: Run = self._ask("reading the run", self._client.get_run, result.run_id)
        except _Unknown:
            raise RegistryError(
                f"MLflow knows no run {result.run_id}: was it deleted? run the training again"
            ) from None
        tags = run.data.tags
        problems = [] if run.info.status == "FINISHED" else [f"its status is {run.info.status}, not FINISHED"]
        expected = {"project": project, **{tag: getattr(result, tag) for tag in COMPARED_TAGS}}
        problems += [
            f"its tag {tag} is {tags.get(tag, 'missing')}, the trainer handed over {value}"
            for tag, value in expected.items()
            if tags.get(tag) != value
        ]
        problems += [] if ACCURACY in run.data.metrics else [f"it has no metric {ACCURACY}"]
        if problems:
            raise RegistryError(
                f"run {result.run_id} cannot be registered: {'; '.join(problems)}; run the training again"
            )
        return run

    def _ensure_model(self, project: str) -> None:
        try:
            self._client.create_registered_model(project)
        except RestException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise self._unavailable("creating the registered model", error) from error
        except MlflowException as error:
            raise self._unavailable("creating the registered model", error) from error

    def _version_of(self, project: str, run_id: str) -> str | None:
        wanted = f"name='{project}' and run_id='{run_id}'"
        found = self._ask("searching model versions", self._client.search_model_versions, wanted)
        return str(min(int(version.version) for version in found)) if found else None

    def _set_alias(self, project: str, alias: str, version: str) -> None:
        self._ask(f"setting the alias `{alias}`", self._client.set_registered_model_alias, project, alias, version)

    def _ask(self, doing: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except MlflowException as error:
            raise self._unavailable(doing, error) from error

    def _unavailable(self, doing: str, error: Exception) -> RegistryUnavailable:
        words = re.sub(r"\s+", " ", str(error))[:300]
        unknown = isinstance(error, RestException) and error.error_code in NOT_FOUND_CODES
        kind = _Unknown if unknown else RegistryUnavailable
        return kind(f"{doing} failed at MLflow {self._uri} ({words}): try again when it answers")

"""Which run serves: its tags, kept beside the weights so that a restart needs neither MLflow nor S3."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from api import log
from api.errors import ConfigError, Unavailable
from api.mlflow import ATTEMPTS, Run, read_run

Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
DirMd5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}\.dir$")]

TAGS = ["project", "dvc_hash", "dvc_hash_onnx", "snapshot_id", "snapshot_md5", "git_commit", "image_id"]
ACCURACY_METRIC = "accuracy_top1"


class Identity(BaseModel):
    """The custody of a run, as far as the API tells it."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    project: str
    dvc_hash: Md5
    dvc_hash_onnx: Md5
    snapshot_id: str
    snapshot_md5: DirMd5
    git_commit: str
    image_id: str
    accuracy: float
    experiment_id: str = ""


class _Manifest(BaseModel):
    """An identity on disk, with the md5 of its JSON."""

    identity: Identity
    md5: Md5


def identify(run_id: str, project: str, mlflow_url: str, weights: Path, recorded: Identity | None = None) -> Identity:
    """The identity of the run: from the manifest below `weights`, else from MLflow, which writes the manifest.

    Where MLflow is silent, what the release's record says of the run counts. Raises ConfigError when the run lacks tags
    or is another project's, Unavailable when MLflow is needed and silent.
    """
    path = weights / "runs" / f"{run_id}.json"
    identity = _kept(path)
    if identity is None:
        try:
            identity = from_run(read_run(mlflow_url, run_id, attempts=ATTEMPTS if recorded is None else 1))
        except Unavailable as cause:
            if recorded is None:
                raise
            log.event("mlflow_silent", cause=str(cause), instead="what the release's record says of the run")
            identity = recorded
        _keep(identity, path)
    if identity.run_id != run_id or identity.project != project:
        raise ConfigError(
            f"Run {identity.run_id} belongs to project {identity.project}, but this container serves run {run_id} "
            f"of project {project}. Check PROJECT and MLFLOW_RUN_ID."
        )
    return identity


def run_url(mlflow_public_url: str, identity: Identity) -> str | None:
    """Where a person finds the run in MLflow; None where that is not known."""
    if not mlflow_public_url or not identity.experiment_id:
        return None
    return f"{mlflow_public_url.rstrip('/')}/#/experiments/{identity.experiment_id}/runs/{identity.run_id}"


def from_run(run: Run) -> Identity:
    """The identity that the run's tags and metrics say; ConfigError when they are missing or malformed."""
    if ACCURACY_METRIC not in run.metrics:
        raise ConfigError(
            f"MLflow run {run.run_id} lacks the metric {ACCURACY_METRIC}: its trainer did not finish. "
            "Choose a run that `train` finished."
        )
    try:
        return Identity.model_validate(
            {
                **run.require(TAGS),
                "run_id": run.run_id,
                "accuracy": run.metrics[ACCURACY_METRIC],
                "experiment_id": run.experiment_id,
            }
        )
    except ValidationError as cause:
        problems = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in cause.errors())
        raise ConfigError(
            f"MLflow run {run.run_id} has malformed tags ({problems}). Choose a run that `train` finished."
        ) from None


def _kept(path: Path) -> Identity | None:
    """The identity in the manifest; None without a manifest or with one that is not as it was written."""
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        manifest = None
    if manifest is None or _md5(manifest.identity) != manifest.md5:
        log.event("manifest_altered", path=str(path), next_step="asking MLflow instead")
        return None
    return manifest.identity


def _keep(identity: Identity, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(_Manifest(identity=identity, md5=_md5(identity)).model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _md5(identity: Identity) -> str:
    # Without what is not known: so it was written before there was an experiment's id.
    return hashlib.md5(identity.model_dump_json(exclude_defaults=True).encode(), usedforsecurity=False).hexdigest()

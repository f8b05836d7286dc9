"""What a training hands to the steps after it, checked where it is taken over."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class TrainResultError(Exception):
    """The trainer's result is missing or malformed."""


class TrainResult(BaseModel):
    """What the trainer handed over; see docs/contracts.md."""

    model_config = ConfigDict(frozen=True)

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    dvc_hash: Md5
    dvc_hash_onnx: Md5
    dvc_hash_golden: Md5
    dvc_hash_split: Md5
    snapshot_id: Annotated[str, Field(min_length=1)]
    snapshot_md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.dir$")]
    metrics: dict[str, JsonValue]
    classes: tuple[str, ...]


class Provenance(BaseModel):
    """What MLflow knows of a run besides its hashes: the code and the image that trained it, and how well."""

    model_config = ConfigDict(frozen=True)

    experiment_id: str
    git_commit: str
    image_id: str
    accuracy: float


class Registered(BaseModel):
    """A run in the registry."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    dvc_hash: str
    model_version: str
    provenance: Provenance


def read_train_result(xcom: object) -> TrainResult:
    """The trainer's result as it came by XCom. Raises TrainResultError naming everything that is wrong with it."""
    if xcom is None:
        raise TrainResultError("the task `train` handed over no result (no XCom): look at its log, then clear it")
    try:
        return TrainResult.model_validate(xcom)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors())
        raise TrainResultError(
            f"the result of the task `train` is not what a trainer writes ({problems}): look at its log, then clear it"
        ) from None

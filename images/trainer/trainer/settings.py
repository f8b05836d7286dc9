"""What each command reads from its environment (docs/contracts.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from trainer.errors import ConfigError
from trainer.s3 import S3Access

CACHE_DIR = Path("/cache")

# What the trainer itself decides; a project may not set these through TRAIN_ARGS.
OWN_TRAIN_ARGS = frozenset(
    {"batch", "cfg", "data", "deterministic", "device", "epochs", "exist_ok", "fraction", "imgsz", "lr0", "mode"}
    | {"model", "name", "plots", "pretrained", "project", "resume", "save", "save_dir", "save_period", "seed"}
    | {"single_cls", "split", "task", "time", "val", "verbose"}
)

Text = Annotated[str, Field(min_length=1)]


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None


def _json_list(value: Any) -> Any:
    return json.loads(value or "[]") if isinstance(value, str) else value


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _StorageSettings(_Settings):
    project: Text
    s3_endpoint_url: Annotated[str, Field(pattern=r"^https?://")]
    aws_access_key_id: Text
    aws_secret_access_key: Annotated[SecretStr, Field(min_length=1)]
    aws_region: str = "us-east-1"
    train_bucket: Text
    airlock_bucket: Text
    dvc_bucket: Text

    def s3(self) -> S3Access:
        """The S3 server and the keys for it."""
        return S3Access(
            endpoint_url=self.s3_endpoint_url,
            access_key_id=self.aws_access_key_id,
            secret_access_key=self.aws_secret_access_key.get_secret_value(),
            region=self.aws_region,
        )


class SnapshotSettings(_StorageSettings):
    """Environment of `snapshot`."""

    expected_digest: str = ""
    triggered_by: str = ""


class SweepSettings(_StorageSettings):
    """Environment of `sweep`."""

    old_snapshots: Annotated[list[str], NoDecode, BeforeValidator(_json_list)] = Field(default_factory=list)
    keep_days: Annotated[float, Field(gt=0)]
    delete: bool = False


class CheckSettings(_Settings):
    """Environment of `check`."""

    device: Literal["cuda", "cpu"]


class TrainSettings(_StorageSettings):
    """Environment of `train`."""

    mlflow_tracking_uri: Annotated[str, Field(pattern=r"^https?://")]
    mlflow_outage_minutes: Annotated[float, Field(ge=0)]

    snapshot_id: Text
    device: Literal["cuda", "cpu"]
    model: Text
    image_size: Annotated[int, Field(ge=32, multiple_of=32)]
    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_empty_is_none)] = None
    seed: Annotated[int, Field(ge=0)]
    train_args: Annotated[dict[str, Any], NoDecode, BeforeValidator(_json_object)] = Field(default_factory=dict)
    val_share: Annotated[float, Field(gt=0, lt=1)]
    min_images_per_class: Annotated[int, Field(ge=1)]
    max_bad_share: Annotated[float, Field(ge=0, le=1)]
    packs: bool = False
    memory_bytes: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_empty_is_none)] = None
    cache_limit_bytes: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_empty_is_none)] = None

    airflow_dag_id: Text
    airflow_run_id: Text
    airflow_task_id: Text
    airflow_try_number: str = "1"
    image_id: str = ""
    code_commit: str = ""
    trainer: str = "default"
    reason: str = ""
    triggered_by: str = ""
    backfill: str = ""
    parent_run_id: str = ""

    @field_validator("model")
    @classmethod
    def _model_needs_no_download(cls, model: str) -> str:
        in_bucket = model.startswith("s3:") and model.endswith(".pt")
        if not in_bucket and not model.endswith("-cls.yaml"):
            raise ValueError("must be a classifier's YAML such as yolo11n-cls.yaml, or s3:<key> of a .pt in the bucket")
        return model

    @field_validator("train_args")
    @classmethod
    def _train_args_leave_ours_alone(cls, args: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(OWN_TRAIN_ARGS & args.keys()):
            raise ValueError(f"may not set {', '.join(ours)}: the trainer sets these itself")
        return args


S = TypeVar("S", bound=_Settings)


def read(kind: type[S]) -> S:
    """Settings of a command from the environment.

    Raises:
        ConfigError: naming every variable that is missing or wrong, at once, without its value.
    """
    try:
        return kind()
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise ConfigError(
            f"{len(problems)} problem(s) in the environment: {'; '.join(problems)}. "
            "Correct the project's YAML or the deployment's settings."
        ) from None

"""What the commands are told, by environment variables (docs/contracts.md)."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.errors import ConfigError
from api.identity import Identity
from api.model import Device

Word = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+", strip_whitespace=True)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Empty = Annotated[str, StringConstraints(max_length=0)]


class StoreSettings(BaseSettings):
    """Where runs and objects are, and the keys to read them."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True)

    project: Word = Field(validation_alias="PROJECT")
    s3_endpoint_url: Url = Field(validation_alias="S3_ENDPOINT_URL")
    s3_region: Word = Field("us-east-1", validation_alias="AWS_REGION")
    s3_access_key_id: Word = Field(validation_alias="AWS_ACCESS_KEY_ID")
    s3_secret_access_key: SecretStr = Field(validation_alias="AWS_SECRET_ACCESS_KEY", min_length=1)
    dvc_bucket: Word = Field(validation_alias="DVC_BUCKET")
    mlflow_url: Url = Field(validation_alias="MLFLOW_TRACKING_URI")


class ServeSettings(StoreSettings):
    """Settings of `serve`."""

    release_id: Word = Field(validation_alias="RELEASE_ID")
    run_id: RunId = Field(validation_alias="MLFLOW_RUN_ID")
    api_image_id: Word = Field(validation_alias="IMAGE_ID")
    device: Device = Field("cpu", validation_alias="DEVICE")
    mlflow_public_url: Url | Empty = Field("", validation_alias="MLFLOW_PUBLIC_URL")
    recorded: Identity | None = Field(None, validation_alias="RELEASE_IDENTITY")
    root_path: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_-]+)*$")] = Field(
        "", validation_alias="ROOT_PATH"
    )


class EvaluateSettings(StoreSettings):
    """Settings of `evaluate`."""

    challenger_run_id: RunId = Field(validation_alias="CHALLENGER_RUN_ID")
    champion_run_id: RunId | Empty = Field("", validation_alias="CHAMPION_RUN_ID")


class TaskSettings(BaseSettings):
    """Where a task leaves its result; read apart, so that other problems of the environment can be written there."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True)

    result_path: Path = Field(validation_alias="RESULT_PATH")


Settings = TypeVar("Settings", bound=BaseSettings)


def read(kind: type[Settings]) -> Settings:
    """The environment as `kind`; ConfigError lists every problem at once, and no value of it."""
    try:
        return kind()
    except ValidationError as cause:
        problems = sorted({f"{problem['loc'][0]}: {problem['msg']}" for problem in cause.errors(include_input=False)})
        raise ConfigError(
            f"The environment of this container is wrong in {len(problems)} places; {'; '.join(problems)}. "
            "Set these variables as docs/contracts.md says."
        ) from None

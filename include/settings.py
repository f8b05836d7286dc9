"""What Airflow's containers and the set-up job are told by their environment (`AIRLOCK_…`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.sizes import in_bytes

RECORDS_BUCKET = "airlock"
DVC_BUCKET = "dvc"
MLFLOW_BUCKET = "mlflow"

MODELS_REMOTE = "models"

S = TypeVar("S", bound=BaseSettings)


def _size_or_none(value: object) -> object:
    return None if value == "" else in_bytes(value)


class SettingsError(Exception):
    """The environment does not hold what the deployment needs; the message lists every problem."""


@dataclass(frozen=True)
class S3Identity:
    """One pair of S3 keys; the secret never shows in a repr."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


class Images(BaseModel):
    """The file that `make` writes: the tags of the images that it built."""

    model_config = ConfigDict(frozen=True)

    trainer: dict[str, str]
    api: str


class Settings(BaseSettings):
    """The deployment's settings, read from the environment; see docs/contracts.md."""

    model_config = SettingsConfigDict(env_prefix="AIRLOCK_", frozen=True, extra="ignore")

    s3_endpoint_url: str
    s3_region: str = "us-east-1"
    s3_bucket_prefix: str = ""
    s3_airflow_access_key_id: str
    s3_airflow_secret_access_key: SecretStr
    # Only what starts containers is given the trainer's and the API's, only the set-up jobs the administrator's.
    s3_trainer_access_key_id: str = ""
    s3_trainer_secret_access_key: SecretStr = SecretStr("")
    s3_api_access_key_id: str = ""
    s3_api_secret_access_key: SecretStr = SecretStr("")
    s3_admin_access_key_id: str = ""
    s3_admin_secret_access_key: SecretStr = SecretStr("")

    mlflow_url: str
    mlflow_public_url: str
    docker_url: str
    front_url: str
    front_public_url: str = ""
    haproxy_dir: Path = Path("/run/airlock-haproxy")
    images_file: Path = Path("/opt/airlock/state/images.json")
    code_commit: str = "unknown"
    device: Literal["cuda", "cpu"] = "cuda"
    api_device: Literal["cuda", "cpu"] = "cpu"
    """What APIs predict on. Evaluations take the processor, whatever this is."""
    network: str = "airlock"
    bind: str = "127.0.0.1"
    """Where the published ports listen; on another machine's side of it, an API asks for a key."""
    otlp_endpoint: str = ""
    """The OpenTelemetry collector to which the APIs export, by OTLP over HTTP; empty: they do not."""
    airflow_url: str = "http://airflow-api-server:8080"
    airflow_public_url: str = ""
    alert_channels: SecretStr = SecretStr("")
    """`<name>=<URL>` of each channel; the watchdog alone is given them."""
    watchdog_password: SecretStr = SecretStr("")
    cache_limit: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_size_or_none)] = None
    """Bytes of dataset content that a host keeps; None: as much as its disk holds."""

    def bucket(self, name: str) -> str:
        """The full name of a bucket: the deployment's prefix and `name`."""
        return f"{self.s3_bucket_prefix}{name}"

    @property
    def published(self) -> bool:
        """Whether others than this machine reach the front door."""
        return not (self.bind == "localhost" or self.bind.startswith("127.") or self.bind == "::1")

    @property
    def records_bucket(self) -> str:
        """Snapshot and release records."""
        return self.bucket(RECORDS_BUCKET)

    @property
    def dvc_bucket(self) -> str:
        """Both DVC remotes, `data/` and `models/`."""
        return self.bucket(DVC_BUCKET)

    @property
    def mlflow_bucket(self) -> str:
        """MLflow's artifacts."""
        return self.bucket(MLFLOW_BUCKET)

    def identity(self, role: Literal["admin", "airflow", "trainer", "api"]) -> S3Identity:
        """The S3 keys of a role. Raises SettingsError where this process was not given them."""
        key_id: str = getattr(self, f"s3_{role}_access_key_id")
        secret: str = getattr(self, f"s3_{role}_secret_access_key").get_secret_value()
        for name, value in (("ACCESS_KEY_ID", key_id), ("SECRET_ACCESS_KEY", secret)):
            if not value:
                raise SettingsError(
                    f"AIRLOCK_S3_{role.upper()}_{name} is not set: "
                    + ("only the set-up jobs have it" if role == "admin" else "set it in .env, then run `make up`")
                )
        return S3Identity(key_id, secret)

    def trainer_image(self, variant: str) -> str:
        """The tag of a trainer variant. Raises SettingsError where `make up` has not built it."""
        images = self._images().trainer
        if variant not in images:
            have = ", ".join(sorted(images)) or "none"
            raise SettingsError(f"no image of the trainer variant {variant!r} (built: {have}); run `make up`")
        return images[variant]

    def api_image(self) -> str:
        """The tag of the API image. Raises SettingsError where `make up` has not built it."""
        return self._images().api

    def _images(self) -> Images:
        try:
            return Images.model_validate_json(self.images_file.read_text())
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the list of images {self.images_file} cannot be read ({error}); run `make up`"
            ) from error


@cache
def get_settings() -> Settings:
    """The settings of this process. Raises SettingsError with every problem; no value is shown."""
    return from_environment(Settings)


def from_environment(model: type[S]) -> S:
    """Settings read from the environment. Raises SettingsError with every problem; no value is shown."""
    try:
        return model.model_validate({})
    except ValidationError as error:
        prefix = model.model_config.get("env_prefix", "")
        problems = [f"{prefix}{'_'.join(map(str, e['loc']))}".upper() + f": {e['msg']}" for e in error.errors()]
        raise SettingsError("the deployment's environment is wrong; " + "; ".join(problems)) from None

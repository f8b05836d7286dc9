"""The tags and metrics of a run, by MLflow's REST API."""

import time
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ValidationError

from api.errors import ConfigError, Unavailable

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
TIMEOUT = httpx.Timeout(10, connect=3)


class _Pair(BaseModel):
    key: str
    value: str


class _Metric(BaseModel):
    key: str
    value: float


class _Data(BaseModel):
    tags: list[_Pair] = []
    metrics: list[_Metric] = []


class _Info(BaseModel):
    experiment_id: str = ""


class _Run(BaseModel):
    info: _Info = _Info()
    data: _Data


class _Answer(BaseModel):
    run: _Run


@dataclass(frozen=True)
class Run:
    """What MLflow knows of a run."""

    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]
    experiment_id: str = ""

    def tag(self, name: str) -> str:
        """The tag's value; ConfigError when it is missing or empty."""
        return self.require([name])[name]

    def require(self, names: list[str]) -> dict[str, str]:
        """These tags; ConfigError names all that are missing or empty."""
        missing = [name for name in names if not self.tags.get(name)]
        if missing:
            raise ConfigError(
                f"MLflow run {self.run_id} lacks the tags {', '.join(missing)}: its trainer did not finish, or another "
                "program wrote it. Choose a run that `train` finished."
            )
        return {name: self.tags[name] for name in names}


def read_run(url: str, run_id: str, attempts: int = ATTEMPTS) -> Run:
    """The run from the server at `url`, asked a few times; Unavailable when it does not answer properly."""
    cause = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            answer = httpx.get(f"{url.rstrip('/')}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=TIMEOUT)
        except httpx.HTTPError as error:
            cause = f"{type(error).__name__}: {error}"
            continue
        if answer.status_code == httpx.codes.OK:
            return _parsed(url, run_id, answer)
        if answer.status_code < 500:
            raise ConfigError(
                f"MLflow at {url} answered {answer.status_code} for run {run_id} ({answer.text[:200].strip()}): "
                "the run is unknown there, or the server does not allow this host name. Check MLFLOW_TRACKING_URI "
                "and the run's id."
            )
        cause = f"status {answer.status_code}"
    raise Unavailable(
        f"MLflow at {url} could not be asked for run {run_id} ({cause}, {attempts} attempts). "
        "Check that MLflow runs and can be reached from this container."
    )


def _parsed(url: str, run_id: str, answer: httpx.Response) -> Run:
    try:
        run = _Answer.model_validate_json(answer.content).run
    except ValidationError:
        raise Unavailable(
            f"{url} answered run {run_id} with something that is not MLflow's JSON. Check MLFLOW_TRACKING_URI."
        ) from None
    return Run(
        run_id,
        {tag.key: tag.value for tag in run.data.tags},
        {each.key: each.value for each in run.data.metrics},
        run.info.experiment_id,
    )

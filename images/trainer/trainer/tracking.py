"""One MLflow run per container: logged live, never lost, FINISHED only when everything it stands for is in place.

Ultralytics' own MLflow callback trains on untracked when MLflow is unreachable, and ends the run before the weights
are anywhere; it is switched off.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient

from trainer.errors import ConfigError, TrainerError, UnavailableError
from trainer.termination import Terminated, ignore_sigterm, sigterm_held

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
PARAM_LENGTH = 6000  # MLflow refuses longer values
T = TypeVar("T")


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch measured; `epoch` counts from 1 and is MLflow's step."""

    epoch: int
    timestamp_ms: int
    metrics: dict[str, float]


class Spool:
    """Every epoch's metrics on disk, so that an outage or a retry in another container loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, until_epoch: int) -> list[EpochMetrics]:
        """Epochs up to `until_epoch`, the newest record of each; a torn last line does not count."""
        found: dict[int, EpochMetrics] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    row = EpochMetrics(**json.loads(line))
                except (json.JSONDecodeError, TypeError):
                    continue
                found[row.epoch] = row
        return [found[epoch] for epoch in sorted(found) if epoch <= until_epoch]

    def append(self, row: EpochMetrics) -> None:
        """Add one epoch."""
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


class Tracker:
    """The container's MLflow run."""

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        run_id: str,
        outage_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.experiment_id = experiment_id
        self.run_id = run_id
        self._client = client
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._sleep = sleep
        self._spool: Spool | None = None
        self._backlog: deque[EpochMetrics] = deque()
        self._down_since: float | None = None
        self._next_try = 0.0

    def use_spool(self, spool: Spool, resumed_epoch: int) -> None:
        """Keep epochs in `spool`; those that an earlier try finished are logged to this run too."""
        self._spool = spool
        self._backlog.extend(spool.read(resumed_epoch))
        self.flush()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch as one batch; without MLflow it is kept and sent later, in order.

        Raises:
            UnavailableError: MLflow has not answered for the allowed minutes.
        """
        row = EpochMetrics(epoch, int(time.time() * 1000), dict(metrics))
        if self._spool:
            self._spool.append(row)
        self._backlog.append(row)
        self._next_try = 0.0
        self.flush()

    def flush(self) -> None:
        """Send what is waiting, if it is time to try; cheap enough to call after every batch of pictures."""
        while self._backlog and self._clock() >= self._next_try:
            row = self._backlog[0]
            metrics = [Metric(name, value, row.timestamp_ms, row.epoch) for name, value in row.metrics.items()]
            try:
                self._ask(partial(self._client.log_batch, self.run_id, metrics=metrics))
            except _Outage:
                return
            self._backlog.popleft()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what the run was given."""
        rows = [Param(name, str(value)[:PARAM_LENGTH]) for name, value in params.items()]
        self._insist(lambda: self._client.log_batch(self.run_id, params=rows))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log measurements of the finished model."""
        now = int(time.time() * 1000)
        rows = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._insist(lambda: self._client.log_batch(self.run_id, metrics=rows))

    def log_files(self, paths: Sequence[Path], folder: str) -> None:
        """Store files as artifacts, through MLflow's own server."""
        for path in paths:
            self._insist(partial(self._client.log_artifact, self.run_id, str(path), folder))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the run."""
        rows = [RunTag(name, value) for name, value in tags.items()]
        self._insist(lambda: self._client.log_batch(self.run_id, tags=rows))

    def finish(self, tags: Mapping[str, str]) -> None:
        """Send what still waits, set `tags`, read them back, and only then end the run as FINISHED."""
        while self._backlog:
            self.flush()
            if self._backlog:
                self._sleep(RETRY_SECONDS)
        self.set_tags(tags)
        stored = self._insist(lambda: self._client.get_run(self.run_id)).data.tags
        if wrong := sorted(name for name, value in tags.items() if stored.get(name) != value):
            raise TrainerError(f"MLflow run {self.run_id} does not hold the tags just set: {', '.join(wrong)}")
        self._insist(lambda: self._client.set_terminated(self.run_id, "FINISHED"))
        ignore_sigterm()  # a retry of what is FINISHED would train a second such run
        log.info("mlflow.finished run_id=%s", self.run_id)

    def close(self, status: str) -> None:
        """End the run as FAILED or KILLED, one attempt: the container is about to go."""
        try:
            self._client.set_terminated(self.run_id, status)
            log.info("mlflow.closed run_id=%s status=%s", self.run_id, status)
        except MlflowException as error:
            log.error("mlflow.not_closed run_id=%s status=%s cause=%s", self.run_id, status, error)

    def _insist(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return self._ask(call)
            except _Outage:
                self._sleep(RETRY_SECONDS)

    def _ask(self, call: Callable[[], T]) -> T:
        """One call. `_Outage` when MLflow does not answer but may yet; a TrainerError when trying again is useless."""
        try:
            answer = call()
        except MlflowException as error:
            if isinstance(error, RestException) and int(error.get_http_status_code()) < 500:  # type: ignore[no-untyped-call]
                raise TrainerError(f"MLflow refused a call on run {self.run_id}: {error}. Was it deleted?") from error
            self._note_outage(error)
            raise _Outage from error
        if self._down_since is not None:
            log.info("mlflow.back after_seconds=%.0f waiting_epochs=%d", self._outage(), len(self._backlog))
        self._down_since, self._next_try = None, 0.0
        return answer

    def _note_outage(self, error: MlflowException) -> None:
        self._next_try = self._clock() + RETRY_SECONDS
        if self._down_since is None:
            self._down_since = self._clock()
            log.warning("mlflow.down run_id=%s waiting_epochs=%d cause=%s", self.run_id, len(self._backlog), error)
        if self._outage() >= self._outage_seconds:
            raise UnavailableError(
                f"MLflow has not answered for {self._outage_seconds / 60:g} minutes ({error}). "
                "Bring it back; the retry goes on from the last checkpoint."
            ) from error

    def _outage(self) -> float:
        return 0.0 if self._down_since is None else self._clock() - self._down_since


class _Outage(Exception):
    """MLflow did not answer this time; within the allowed minutes that is no failure."""


@contextmanager
def tracked_run(
    tracking_uri: str, experiment: str, run_name: str, tags: Mapping[str, str], outage_minutes: float
) -> Iterator[Tracker]:
    """Open a run; end it as KILLED on SIGTERM and as FAILED on any other failure. `Tracker.finish` ends it well.

    Raises:
        UnavailableError: MLflow does not answer.
    """
    client = MlflowClient(tracking_uri)
    tracker: Tracker | None = None
    try:
        with _opening(tracking_uri):
            experiment_id = _experiment_id(client, experiment)
            _close_abandoned(client, experiment_id, tags)
            with sigterm_held():  # MLflow may have made a run that is not known here yet
                run = client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
                tracker = Tracker(client, experiment_id, str(run.info.run_id), outage_minutes * 60)
        log.info("mlflow.started run_id=%s experiment=%s", tracker.run_id, experiment)
        yield tracker
    except BaseException as failure:
        ignore_sigterm()  # it would leave the run RUNNING
        if tracker:
            tracker.close("KILLED" if isinstance(failure, Terminated) else "FAILED")
        raise


@contextmanager
def _opening(tracking_uri: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise UnavailableError(
            f"MLflow at {_without_credentials(tracking_uri)} did not open a run ({error}). Nothing was trained: "
            "bring MLflow back, then let the task be retried."
        ) from error


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except RestException:  # another project's first run was quicker, or the server says why not
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ConfigError(f"MLflow's experiment {name!r} is deleted. Restore it, or remove it for good.")
    return str(found.experiment_id)


def _close_abandoned(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> None:
    """End runs of earlier tries of the same task that were killed too hard to do it themselves."""
    same_task = " and ".join(
        f"tags.{name} = '{tags[name]}'" for name in ("airflow_dag_id", "airflow_run_id", "airflow_task_id")
    )
    for run in client.search_runs([experiment_id], f"attributes.status = 'RUNNING' and {same_task}"):
        client.set_terminated(run.info.run_id, "KILLED")
        log.info("mlflow.abandoned_run_closed run_id=%s", run.info.run_id)


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"

"""SIGTERM at the moments at which an MLflow run could be left RUNNING, or FINISHED and then trained anew."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from trainer import tracking
from trainer.termination import Terminated, raise_on_sigterm
from trainer.tracking import tracked_run

TAGS = {"airflow_dag_id": "pets__retrain", "airflow_run_id": "manual__1", "airflow_task_id": "train"}


class FakeMlflow:
    """MLflow with one run, in which SIGTERM arrives while the call `stopped_in` is under way."""

    def __init__(self, _uri: str) -> None:
        self.stopped_in = ""
        self.status: str | None = None
        self.tags: dict[str, str] = {}

    def get_experiment_by_name(self, _name: str) -> Any:
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

    def search_runs(self, *_: object) -> list[Any]:
        return []

    def create_run(self, *_: object, **__: object) -> Any:
        self.status = "RUNNING"
        self._maybe_stopped("create_run")
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def log_batch(self, _run_id: str, tags: Any) -> None:
        self.tags |= {tag.key: tag.value for tag in tags}

    def get_run(self, _run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags))

    def set_terminated(self, _run_id: str, status: str) -> None:
        self._maybe_stopped("set_terminated")
        self.status = status

    def _maybe_stopped(self, call: str) -> None:
        if self.stopped_in == call:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMlflow]:
    fake = FakeMlflow("")
    monkeypatch.setattr(tracking, "MlflowClient", lambda _uri: fake)
    before = signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    yield fake
    signal.signal(signal.SIGTERM, before)


def _run() -> Any:
    return tracked_run("http://mlflow:5000", "pets", "a run", TAGS, 1)


def test_stopped_while_the_run_is_made_it_is_killed_and_nothing_is_trained(mlflow: FakeMlflow) -> None:
    mlflow.stopped_in = "create_run"
    with pytest.raises(Terminated), _run():
        pytest.fail("went on")
    assert mlflow.status == "KILLED"


def test_stopped_while_a_failed_run_is_closed_it_is_closed_and_fails_by_its_own_error(mlflow: FakeMlflow) -> None:
    mlflow.stopped_in = "set_terminated"
    with pytest.raises(ValueError, match="the failure"), _run():
        raise ValueError("the failure")
    assert mlflow.status == "FAILED"


def test_stopped_while_training_the_run_is_killed(mlflow: FakeMlflow) -> None:
    with pytest.raises(Terminated), _run():
        signal.raise_signal(signal.SIGTERM)
    assert mlflow.status == "KILLED"


def test_stopped_after_it_finished_the_command_ends_well(mlflow: FakeMlflow) -> None:
    with _run() as tracker:
        tracker.finish({"dvc_hash": "abc"})
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert mlflow.status == "FINISHED"

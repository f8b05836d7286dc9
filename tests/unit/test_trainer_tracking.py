from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from trainer.errors import UnavailableError
from trainer.tracking import RETRY_SECONDS, Spool, Tracker

MINUTE = 60.0


class FakeMlflow:
    """MLflow as the tracker sees it, with an outage at will and a clock that tests move: outages take minutes."""

    def __init__(self) -> None:
        self.up = True
        self.now = 0.0
        self.steps: list[int] = []

    def log_batch(self, _run_id: str, metrics: Any = ()) -> None:
        if not self.up:
            raise MlflowException("connection refused")
        self.steps.extend(metric.step for metric in metrics)


@pytest.fixture
def mlflow() -> FakeMlflow:
    return FakeMlflow()


@pytest.fixture
def tracker(mlflow: FakeMlflow, tmp_path: Path) -> Tracker:
    """A tracker that bridges ten minutes."""
    tracker = Tracker(mlflow, "1", "run", 10 * MINUTE, clock=lambda: mlflow.now)  # type: ignore[arg-type]
    tracker.use_spool(Spool(tmp_path / "metrics.jsonl"), resumed_epoch=0)
    return tracker


def test_epochs_of_an_outage_are_sent_in_order_when_mlflow_is_back(tracker: Tracker, mlflow: FakeMlflow) -> None:
    tracker.log_epoch(1, {"loss": 3.0})
    mlflow.up = False
    for epoch in (2, 3, 4):
        mlflow.now += MINUTE
        tracker.log_epoch(epoch, {"loss": 2.0})
    assert mlflow.steps == [1]
    mlflow.up = True
    mlflow.now += RETRY_SECONDS
    tracker.flush()
    assert mlflow.steps == [1, 2, 3, 4]


def test_training_fails_only_after_the_allowed_minutes(tracker: Tracker, mlflow: FakeMlflow) -> None:
    mlflow.up = False
    tracker.log_epoch(1, {"loss": 3.0})
    mlflow.now += 9 * MINUTE
    tracker.flush()
    mlflow.now += MINUTE
    with pytest.raises(UnavailableError, match="10 minutes"):
        tracker.flush()


def test_the_minutes_count_anew_after_each_answer(tracker: Tracker, mlflow: FakeMlflow) -> None:
    for epoch in range(1, 5):
        mlflow.up = False
        tracker.log_epoch(epoch, {"loss": 3.0})
        mlflow.now += 9 * MINUTE
        mlflow.up = True
        tracker.flush()
    assert mlflow.steps == [1, 2, 3, 4]


def test_a_mlflow_that_is_down_is_not_asked_after_every_batch(tracker: Tracker, mlflow: FakeMlflow) -> None:
    mlflow.up = False
    tracker.log_epoch(1, {"loss": 3.0})
    mlflow.up = True
    tracker.flush()
    assert mlflow.steps == []


def test_a_resumed_run_shows_the_epochs_of_the_try_before(mlflow: FakeMlflow, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Tracker(mlflow, "1", "first", MINUTE)  # type: ignore[arg-type]
    first.use_spool(Spool(path), resumed_epoch=0)
    for epoch in (1, 2, 3):
        first.log_epoch(epoch, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"epoch": 4, "timest')  # killed while writing
    mlflow.steps.clear()
    Tracker(mlflow, "1", "second", MINUTE).use_spool(Spool(path), resumed_epoch=2)  # type: ignore[arg-type]
    assert mlflow.steps == [1, 2]

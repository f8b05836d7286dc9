"""The parent run of a backfill: one, whoever asks first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from include.backfills import Backfills
from include.registry import RegistryUnavailable
from include.s3 import ObjectChanged, Stored

SNAPSHOT = "20260903T101500123Z-aaaaaaaa"


class Bucket:
    """A bucket in memory; `meanwhile` happens just before the first write."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.meanwhile: tuple[str, bytes] | None = None

    def read(self, key: str) -> Stored | None:
        return Stored(self.objects[key], "e") if key in self.objects else None

    def create(self, key: str, body: bytes) -> str:
        if self.meanwhile:
            self.objects.setdefault(*self.meanwhile)
        if key in self.objects:
            raise ObjectChanged(key)
        self.objects[key] = body
        return "e"


class Mlflow:
    """What is asked of MLflow's client."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, str]] = {}
        self.points: list[tuple[Any, ...]] = []
        self.ended: list[str] = []

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7")

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"run-{len(self.runs)}"
        self.runs[run_id] = tags
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def set_terminated(self, run_id: str) -> None:
        self.ended.append(run_id)

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]

    def log_metric(self, run_id: str, key: str, value: float, *, timestamp: int, step: int) -> None:
        self.points.append((run_id, key, value, timestamp, step))


def test_the_first_run_makes_the_parent_and_the_others_find_it() -> None:
    mlflow, bucket = Mlflow(), Bucket()
    backfills: Any = Backfills(mlflow, bucket)  # type: ignore[arg-type]
    parent = backfills.parent("digits", "20261129T020000Z-3")
    assert backfills.parent("digits", "20261129T020000Z-3") == parent
    assert mlflow.runs == {parent: {"project": "digits", "backfill": "20261129T020000Z-3"}}
    assert mlflow.ended == [parent]
    assert backfills.parent("digits", "20261129T030000Z-4") != parent


def test_of_two_that_ask_at_once_the_loser_takes_the_winners_and_leaves_none_behind() -> None:
    mlflow, bucket = Mlflow(), Bucket()
    bucket.meanwhile = ("backfills/digits/b.json", b'{"run_id": "theirs"}')
    assert Backfills(mlflow, bucket).parent("digits", "b") == "theirs"  # type: ignore[arg-type]
    assert mlflow.runs == {}


def test_a_point_lies_at_its_snapshots_time() -> None:
    mlflow = Mlflow()
    Backfills(mlflow, Bucket()).plot("run-0", SNAPSHOT, 0.97)  # type: ignore[arg-type]
    assert mlflow.points == [("run-0", "accuracy_top1", 0.97, 1788430500123, 1788430500)]


def test_mlflow_that_is_away_is_said() -> None:
    mlflow = Mlflow()

    def away(*_: object, **__: object) -> None:
        raise MlflowException("connection refused")

    mlflow.log_metric = away  # type: ignore[method-assign]
    with pytest.raises(RegistryUnavailable, match=r"connection refused.*try again"):
        Backfills(mlflow, Bucket()).plot("run-0", SNAPSHOT, 0.97)  # type: ignore[arg-type]

from __future__ import annotations

from pathlib import Path

import pytest
from api import identity
from api.errors import ConfigError, Unavailable
from api.identity import from_run, identify
from api.mlflow import Run

RUN_ID = "a" * 32
TAGS = {
    "project": "paint",
    "dvc_hash": "b" * 32,
    "dvc_hash_onnx": "c" * 32,
    "snapshot_id": "20261123T171409123Z-c71581aa",
    "snapshot_md5": "d" * 32 + ".dir",
    "git_commit": "abc123",
    "image_id": "sha256:trainer",
}


class Mlflow:
    """Stands where MLflow's REST API is asked, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.down = False

    def read_run(self, url: str, run_id: str) -> Run:
        self.asked += 1
        if self.down:
            raise Unavailable("MLflow is down")
        return Run(run_id, TAGS, {"accuracy_top1": 0.97})


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    mlflow = Mlflow()
    monkeypatch.setattr(identity, "read_run", mlflow.read_run)
    return mlflow


def test_a_second_start_does_not_need_mlflow(mlflow: Mlflow, tmp_path: Path) -> None:
    first = identify(RUN_ID, "paint", "http://mlflow", tmp_path)
    mlflow.down = True
    assert identify(RUN_ID, "paint", "http://mlflow", tmp_path) == first
    assert first.accuracy == 0.97


@pytest.mark.parametrize("damage", ["altered", "truncated", "emptied"])
def test_a_damaged_manifest_is_not_believed(mlflow: Mlflow, tmp_path: Path, damage: str) -> None:
    first = identify(RUN_ID, "paint", "http://mlflow", tmp_path)
    (path,) = (tmp_path / "runs").iterdir()
    text = path.read_text()
    path.write_text({"altered": text.replace("c" * 32, "e" * 32), "truncated": text[:-9], "emptied": ""}[damage])
    assert identify(RUN_ID, "paint", "http://mlflow", tmp_path) == first
    assert mlflow.asked == 2
    mlflow.down = True
    path.write_text("{}")
    with pytest.raises(Unavailable):
        identify(RUN_ID, "paint", "http://mlflow", tmp_path)


def test_a_run_of_another_project_is_refused(mlflow: Mlflow, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to project paint"):
        identify(RUN_ID, "digits", "http://mlflow", tmp_path)


def test_missing_tags_are_all_named() -> None:
    tags = {name: value for name, value in TAGS.items() if name not in ("dvc_hash_onnx", "snapshot_md5")}
    with pytest.raises(ConfigError, match="lacks the tags dvc_hash_onnx, snapshot_md5"):
        from_run(Run(RUN_ID, tags, {"accuracy_top1": 0.5}))


def test_a_run_without_accuracy_or_with_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="accuracy_top1"):
        from_run(Run(RUN_ID, TAGS, {}))
    with pytest.raises(ConfigError, match="dvc_hash_onnx"):
        from_run(Run(RUN_ID, {**TAGS, "dvc_hash_onnx": "../../etc/passwd"}, {"accuracy_top1": 0.5}))

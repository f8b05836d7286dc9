from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from api import identity
from api.errors import ConfigError, Unavailable
from api.identity import Identity, from_run, identify, run_url
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

    def read_run(self, url: str, run_id: str, attempts: int) -> Run:
        self.asked += 1
        if self.down:
            raise Unavailable("MLflow is down")
        return Run(run_id, TAGS, {"accuracy_top1": 0.97}, "1")


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


def test_where_mlflow_is_silent_the_releases_record_counts_also_on_an_empty_volume(
    mlflow: Mlflow, tmp_path: Path
) -> None:
    recorded = Identity(run_id=RUN_ID, accuracy=0.97, experiment_id="1", **TAGS)
    mlflow.down = True
    assert identify(RUN_ID, "paint", "http://mlflow", tmp_path, recorded) == recorded
    assert identify(RUN_ID, "paint", "http://mlflow", tmp_path) == recorded, "it is kept"
    with pytest.raises(ConfigError, match="belongs to project paint"):
        identify(RUN_ID, "digits", "http://mlflow", tmp_path / "other", recorded)


def test_a_manifest_from_before_the_experiments_id_is_believed(mlflow: Mlflow, tmp_path: Path) -> None:
    fields = {"run_id": RUN_ID, **TAGS, "accuracy": 0.97}
    ordered = {name: fields[name] for name in Identity.model_fields if name in fields}
    body = json.dumps(ordered, separators=(",", ":"))
    (tmp_path / "runs").mkdir()
    md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
    (tmp_path / "runs" / f"{RUN_ID}.json").write_text(f'{{"identity":{body},"md5":"{md5}"}}')
    mlflow.down = True
    assert identify(RUN_ID, "paint", "http://mlflow", tmp_path).dvc_hash == "b" * 32


def test_a_person_finds_the_run_where_both_address_and_experiment_are_known() -> None:
    known = Identity(run_id=RUN_ID, accuracy=0.97, experiment_id="7", **TAGS)
    assert run_url("http://127.0.0.1:5000/", known) == f"http://127.0.0.1:5000/#/experiments/7/runs/{RUN_ID}"
    assert run_url("", known) is None
    assert run_url("http://127.0.0.1:5000", known.model_copy(update={"experiment_id": ""})) is None


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

"""What a newcomer does: `make demo`, a prediction, a look at where it came from."""

from __future__ import annotations

import hashlib
import json

from tests.e2e.lab import pictures
from tests.e2e.system import System, make


def test_the_demo_ends_with_a_model_that_reads_digits_and_says_where_to_look(demo: str, system: System) -> None:
    assert "were read right" in demo
    for port in ("AIRFLOW_PORT", "MLFLOW_PORT", "S3_PORT", "FRONT_PORT"):
        assert f"http://127.0.0.1:{system.settings[port]}" in demo
    digit = pictures()[0]
    answer = system.predict("digits", digit.png)
    assert answer.status_code == 200
    assert answer.json()["label"] == digit.label


def test_housekeeping_finds_nothing_to_remove_in_a_new_system_and_leaves_what_serves(system: System) -> None:
    before = system.metadata("digits")
    run = system.await_end(system.start("airlock__housekeeping"), 180)
    assert run.state == "success", system.tasks(run)
    assert system.xcom(run, "weights") == {"runs": 0, "objects": 0, "bytes": 0, "deleted": False}
    assert system.metadata("digits") == before


def test_the_demo_again_changes_nothing(system: System) -> None:
    before, runs = system.metadata("digits"), system.runs("digits__retrain")
    printed = make("demo")
    assert "in the bucket already" in printed
    assert system.metadata("digits") == before
    assert [run.run_id for run in system.runs("digits__retrain")] == [run.run_id for run in runs]


def test_what_serves_can_be_traced_to_run_weights_dataset_code_and_image(system: System) -> None:
    served = system.metadata("digits")
    run = system.mlflow_run(served["run_id"])
    assert run["status"] == "FINISHED"
    assert system.champion("digits") == served["run_id"]
    for tag in ("dvc_hash", "dvc_hash_onnx", "snapshot_id", "snapshot_md5", "git_commit", "image_id"):
        assert run["tags"][tag] == served[tag]
    for md5 in (served["dvc_hash"], served["dvc_hash_onnx"]):
        content = system.read("dvc", f"models/files/md5/{md5[:2]}/{md5[2:]}")
        assert hashlib.md5(content).hexdigest() == md5
    record = json.loads(system.read("airlock", f"snapshots/digits/{served['snapshot_id']}.json"))
    assert record["md5"] == served["snapshot_md5"]
    name = record["md5"].removesuffix(".dir")
    directory = system.read("dvc", f"data/files/md5/{name[:2]}/{name[2:]}.dir")
    assert hashlib.md5(directory).hexdigest() == name
    first = json.loads(directory)[0]
    picture = system.read("dvc", f"data/files/md5/{first['md5'][:2]}/{first['md5'][2:]}")
    assert hashlib.md5(picture).hexdigest() == first["md5"]
    release = json.loads(system.read("airlock", f"releases/digits/{served['release_id']}.json"))
    assert release["run_id"] == served["run_id"]
    assert release["api_image_id"] == served["api_image_id"]

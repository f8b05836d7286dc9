"""Datasets, keys and settings that cannot be trained with: told in the words of who can mend them, and not retried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.e2e.lab import PROJECTS, Lab, pictures
from tests.e2e.system import Run, System, await_


@pytest.fixture(scope="module", autouse=True)
def project(lab: Lab) -> None:
    """A project with two classes' worth of nothing in its bucket."""
    lab.configure(epochs=1, retries=1, max_bad_share=0.02)


def upload(lab: Lab, files: Mapping[str, bytes]) -> None:
    """Puts files under their keys in place of what is there."""
    lab.clear()
    for key, body in files.items():
        lab.system.s3.put_object(Bucket=lab.system.bucket(lab.bucket), Key=key, Body=body)


def of_class(label: str, count: int, salt: str = "") -> dict[str, bytes]:
    """Pictures of one class, each another."""
    found = [digit for digit in pictures() if digit.label == label][:count]
    return {f"{label}/{salt}{digit.name}": digit.png for digit in found}


def assert_failed_once(system: System, run: Run, task: str, *words: str) -> None:
    """The run failed at this task, at its first attempt, and its log says these words; nothing runs on."""
    assert run.state == "failed"
    assert system.tasks(run)[task] == "failed"
    assert system.attempts(run, task) == 1
    log = system.log(run, task)
    for word in words:
        assert word in log
    assert system.containers(run.dag_id.removesuffix("__retrain")) == []


def test_a_bucket_that_cannot_be_trained_on_fails_once_and_names_every_problem(lab: Lab, system: System) -> None:
    files = {
        **of_class("0", 12),
        **of_class("1", 3),
        "2/notes.txt": f"not a picture, {lab.salt}".encode(),
        "0/cut.png": pictures()[0].png[:200],
    }
    upload(lab, files)
    run = system.await_end(lab.await_new_retrain([]))
    assert_failed_once(
        system,
        run,
        "train",
        "the dataset cannot be trained on",
        "the class '1' has 3 pictures, at least 5 are needed",
        "the class '2' is empty: none of its files can be used: 2/notes.txt",
        "2 of 17 files (11.8%) cannot be used, 2.0% are allowed",
        "0/cut.png (cannot be decoded",
        "Repair or delete them",
    )
    # A refused dataset has its report all the same, and Airflow leads to it.
    address = system.links(run, "train")["Dataset report"]
    assert address.startswith(f"{system.mlflow_url}/#/experiments/")
    run_id, artifact = address.partition("?")[0].rpartition("/runs/")[2].split("/artifacts/")
    answer = system.http.get(f"{system.mlflow_url}/get-artifact", params={"run_uuid": run_id, "path": artifact})
    assert answer.status_code == 200
    assert "0/cut.png" in answer.text


def test_an_unknown_snapshot_is_refused_at_the_form_and_the_nearest_named(lab: Lab, system: System) -> None:
    known = lab.retrains()
    there = next(run.partition_key for run in known if run.partition_key)
    answer = system.trigger(lab.name, there[:-8] + "00000000")
    assert answer.status_code == 400, answer.text
    assert "has no snapshot" in answer.text
    assert "the nearest are" in answer.text
    assert there in answer.text
    assert lab.retrains() == known


def test_a_partition_key_that_is_no_snapshot_is_refused_at_the_form(lab: Lab, system: System) -> None:
    known = lab.retrains()
    answer = system.trigger(lab.name, "yesterday")
    assert 400 <= answer.status_code < 500, answer.text
    assert "is not a snapshot id" in answer.text
    assert lab.retrains() == known


def test_no_gpu_where_one_is_asked_for_fails_at_the_check_and_names_what_is_missing(lab: Lab, system: System) -> None:
    if system.settings["AIRLOCK_DEVICE"] == "cuda":
        pytest.skip("this machine has a GPU")
    lab.configure(device="cuda")
    run = system.await_end(lab.manual())
    lab.configure(device="cpu")
    assert_failed_once(system, run, "gpu_check", "the NVIDIA container toolkit is missing", "set `device: cpu`")


@pytest.mark.extended
def test_a_training_over_its_memory_says_the_limit(lab: Lab, system: System) -> None:
    # A batch of such pictures alone is larger than the limit.
    lab.configure(memory_bytes="1g", image_size=2048)
    known = lab.retrains()
    upload(lab, {**of_class("6", 30, lab.salt), **of_class("7", 30, lab.salt)})
    run = system.await_end(lab.await_new_retrain(known))
    assert run.state == "failed"
    assert system.attempts(run, "train") == 2
    assert "its memory limit of 1024 MiB was reached" in system.log(run, "train", 2)
    assert "lower the batch or raise the limit" in system.log(run, "train", 2)
    assert system.containers(lab.name) == []


@pytest.fixture
def broken_project() -> Iterator[str]:
    """The name of a project whose file has two mistakes."""
    file = PROJECTS / "test-broken.yaml"
    file.write_text("epochs: many\nlerning_rate: 0.1\n")
    yield file.stem
    file.unlink()


def test_a_broken_project_is_an_import_error_of_its_own_and_the_others_go_on(
    lab: Lab, system: System, broken_project: str
) -> None:
    def error() -> str | None:
        found = system.get("/importErrors")["import_errors"]
        return next((row["stack_trace"] for row in found if broken_project in row["filename"]), None)

    words = await_("Airflow's import error", error, 90)
    assert f"{broken_project}.yaml:1: epochs" in words
    assert f"{broken_project}.yaml:2: lerning_rate" in words
    assert "did you mean `learning_rate`?" in words
    for other in (lab.name, "digits"):
        assert not system.get(f"/dags/{other}__retrain")["has_import_errors"]
    assert "has no snapshot" in system.trigger(lab.name, "20200101T000000000Z-00000000").text  # it is there to judge

"""Every project's DAGs load, from its YAML alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from project_bundle import ProjectBundle

import dags.projects
import include.project
from include.releases import CANDIDATE_LASTS

OWN_DAGS = {"airlock__rollback", "airlock__reconcile", "airlock__housekeeping", "airlock__settle"}
LONG_AGO = 1_700_000_000.0
GOOD = "epochs: 3\nlearning_rate: 0.01\ndevice: cpu\n"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("reading DAGs opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def projects_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "projects"
    folder.mkdir()
    monkeypatch.setattr(dags.projects, "PROJECTS_FOLDER", folder)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, projects_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectBundle:
    # The lock of a bundle lies below this folder as well.
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    return ProjectBundle(name="projects", projects_folder=str(projects_folder))


def load(bundle: ProjectBundle) -> DagBag:
    bundle.initialize()
    return DagBag(str(bundle.path), bundle_path=bundle.path, bundle_name="projects")


def test_the_shipped_projects_have_both_dags_and_no_import_error(bundle: ProjectBundle, projects_folder: Path) -> None:
    shipped = list(include.project.PROJECTS_FOLDER.glob("*.yaml"))
    for path in shipped:
        (projects_folder / path.name).write_text(path.read_text())
    bag = load(bundle)
    assert bag.import_errors == {}
    assert set(bag.dags) == OWN_DAGS | {f"{path.stem}__{kind}" for path in shipped for kind in ("watch", "retrain")}


def test_a_broken_project_is_an_import_error_of_its_own_file_and_the_others_load(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD)
    (projects_folder / "broken.yaml").write_text("epochs: many\nsettle: 3\n")
    bag = load(bundle)
    assert set(bag.dags) == OWN_DAGS | {"good__watch", "good__retrain"}
    assert set(bag.import_errors) == {"broken.py"}
    assert "broken.yaml:1: epochs" in bag.import_errors["broken.py"]
    assert "broken.yaml:2: settle" in bag.import_errors["broken.py"]


def test_a_file_that_an_editor_keeps_beside_a_project_disturbs_nothing(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    (projects_folder / "digits.yaml").write_text("device: cpu\n")
    (projects_folder / ".#digits.yaml").symlink_to("ann@host.1234:5678")  # as Emacs locks a file
    (projects_folder / ".digits.yaml").write_text("epochs: [")
    dags = load(bundle)
    assert dags.import_errors == {}
    assert "digits__retrain" in dags.dags


def test_a_removed_project_loses_its_dags(bundle: ProjectBundle, projects_folder: Path) -> None:
    (projects_folder / "good.yaml").write_text(GOOD)
    (projects_folder / "gone.yaml").write_text(GOOD)
    load(bundle)
    (projects_folder / "gone.yaml").unlink()
    assert set(load(bundle).dags) == OWN_DAGS | {"good__watch", "good__retrain"}


def test_what_changes_is_written_when_that_is_seen_so_that_airflow_reads_it_again(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD)
    (projects_folder / "other.yaml").write_text(GOOD)
    bundle.refresh()
    for file in bundle.path.glob("*.py"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    bundle.refresh()
    assert written_since(bundle, LONG_AGO) == set()
    # Older than the last reading: a file that was moved there, or changed while it was being read.
    os.utime(projects_folder / "good.yaml", (LONG_AGO - 60, LONG_AGO - 60))
    bundle.refresh()
    assert written_since(bundle, LONG_AGO) == {"good.py"}


def test_the_forms_that_list_the_projects_are_read_again_when_one_comes_or_goes(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    for change in ((projects_folder / "good.yaml").touch, (projects_folder / "good.yaml").unlink):
        bundle.refresh()
        os.utime(bundle.path / "airlock.py", (LONG_AGO, LONG_AGO))
        change()
        bundle.refresh()
        assert "airlock.py" in written_since(bundle, LONG_AGO)


def written_since(bundle: ProjectBundle, moment: float) -> set[str]:
    """The names of the DAG files that are younger than a time in seconds since 1970."""
    return {file.name for file in bundle.path.glob("*.py") if file.stat().st_mtime > moment}


def test_a_task_builds_only_its_own_dag(
    bundle: ProjectBundle, projects_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "good__watch")
    assert set(load(bundle).dags) == {"good__watch"}


@pytest.fixture
def retrain(bundle: ProjectBundle, projects_folder: Path) -> DAG:
    (projects_folder / "good.yaml").write_text(GOOD)
    return load(bundle).dags["good__retrain"]


@pytest.fixture
def watch(bundle: ProjectBundle, projects_folder: Path) -> DAG:
    (projects_folder / "good.yaml").write_text(GOOD)
    return load(bundle).dags["good__watch"]


def test_the_retrain_runs_its_steps_in_order(retrain: DAG) -> None:
    assert {task.task_id: sorted(task.downstream_task_ids) for task in retrain.tasks} == {
        "choose_snapshot": ["gpu_check"],
        "gpu_check": ["train"],
        "train": ["register"],
        "register": ["evaluate"],
        "evaluate": ["gate"],
        "gate": ["deploy", "keep_champion"],
        "keep_champion": [],
        "deploy": ["verify"],
        "verify": ["promote", "rollback"],
        "promote": ["rollback"],
        "rollback": [],
    }


def test_a_project_may_ask_for_a_persons_approval_before_each_deploy(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD + "approval: required\napprovers: [ann]\napproval_hours: 8\n")
    dag = load(bundle).dags["good__retrain"]
    approve: Any = dag.get_task("approve")
    assert approve.upstream_task_ids == {"gate"}
    assert approve.downstream_task_ids == {"deploy"}
    assert dag.get_task("gate").downstream_task_ids == {"approve", "keep_champion"}
    assert approve.assigned_users == [{"id": "ann", "name": "ann"}]
    assert approve.response_timeout.total_seconds() == 8 * 3600
    assert approve.defaults == ["Reject"], "what nobody has approved is not released"


def test_trainings_and_releases_wait_for_their_pools_and_the_gpu_check_fails_at_once(retrain: DAG) -> None:
    pools = {task.task_id: task.pool for task in retrain.tasks if task.pool != "default_pool"}
    assert pools == dict.fromkeys(["deploy", "verify", "promote", "rollback"], "deploy") | {"train": "gpu"}
    assert retrain.get_task("gpu_check").retries == 0


def test_a_deploy_is_tried_for_as_long_as_another_runs_release_may_be_under_way(retrain: DAG) -> None:
    deploy = retrain.get_task("deploy")
    assert (deploy.retries or 0) * deploy.retry_delay > CANDIDATE_LASTS


def test_the_watch_waits_then_takes_a_snapshot_and_never_loops_without_end(watch: DAG) -> None:
    assert watch.get_task("wait_for_change").downstream_task_ids == {"snapshot"}
    assert watch.max_active_runs == 1
    assert watch.get_task("snapshot").pool == "snapshot"
    assert watch.max_consecutive_failed_dag_runs
    assert all(task.retries and task.retry_exponential_backoff for task in watch.tasks)
    [snapshots] = watch.get_task("snapshot").outlets
    assert snapshots.uri == "airlock://snapshots/good"


@pytest.mark.parametrize("name", ["good__watch", "good__retrain", *sorted(OWN_DAGS)])
def test_a_dag_survives_the_way_through_airflows_database(
    bundle: ProjectBundle, projects_folder: Path, name: str
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD)
    dag = load(bundle).dags[name]
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert again.task_ids == dag.task_ids
    assert dag.doc_md


def test_tasks_lead_to_the_mlflow_run_the_report_on_the_dataset_and_the_live_api(retrain: DAG) -> None:
    again: Any = DagSerialization.from_dict(DagSerialization.to_dict(retrain))
    links = {task.task_id: set(task.extra_links) for task in again.tasks if task.extra_links}
    assert links == {"train": {"MLflow run", "Dataset report"}, "deploy": {"Live API"}}


def test_each_task_says_what_it_does(retrain: DAG, watch: DAG) -> None:
    assert [task.task_id for task in (*retrain.tasks, *watch.tasks) if not task.doc_md] == []


@pytest.mark.parametrize(("params", "epochs", "rate"), [({}, "3", "0.01"), ({"epochs": 7}, "7", "0.01")])
def test_an_empty_field_of_the_form_means_the_projects_own_value(
    retrain: DAG, params: dict[str, Any], epochs: str, rate: str
) -> None:
    train: Any = retrain.get_task("train")
    context: Any = {"params": {**retrain.params.dump(), **params}}
    environment = train.environment
    assert train.render_template(environment["EPOCHS"], context) == epochs
    assert train.render_template(environment["LEARNING_RATE"], context) == rate


def test_braces_in_a_projects_training_arguments_are_not_taken_for_a_template(
    bundle: ProjectBundle, projects_folder: Path
) -> None:
    (projects_folder / "good.yaml").write_text(GOOD + "train_args: {note: '{{ 1 + 1 }}'}\n")
    train: Any = load(bundle).dags["good__retrain"].get_task("train")
    assert train.render_template(train.environment["TRAIN_ARGS"], {}) == '{"note": "{{ 1 + 1 }}"}'

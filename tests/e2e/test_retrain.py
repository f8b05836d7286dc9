"""A model line's life: first model, retrain on change, kept champion, failed deploys. One story, told in order.

Its project trains with other framework versions than the demo's, beside which it serves.
"""

from __future__ import annotations

import pytest

from tests.e2e.client import AskingClient
from tests.e2e.lab import Lab, pictures, withdraw
from tests.e2e.system import System, alerts, await_

ALL = ("choose_snapshot", "gpu_check", "train", "register", "evaluate", "gate", "deploy", "verify", "promote")


@pytest.fixture(scope="module")
def client(lab: Lab, system: System) -> AskingClient:
    """Asks the project's front door whenever it is entered."""
    return AskingClient(int(system.settings["FRONT_PORT"]), lab.name, pictures()[0].png)


def assert_no_task_container(lab: Lab) -> None:
    """Task containers never outlive their task."""
    assert lab.system.containers(lab.name, "task") == []


def test_a_new_project_gets_its_route_bucket_and_dags_and_its_first_pictures_a_model(lab: Lab, system: System) -> None:
    with AskingClient(int(system.settings["FRONT_PORT"]), "digits", pictures()[0].png) as neighbour:
        lab.configure(trainer="ultralytics-8.3")
    assert neighbour.failed == {}
    assert neighbour.answers["200"] > 100
    assert system.http.get(f"{system.front}/{lab.name}/health").status_code == 503
    lab.put(pictures()[:400])
    run = system.await_end(lab.await_new_retrain([]))
    assert run.state == "success", system.tasks(run)
    assert {task: system.tasks(run)[task] for task in ALL} == dict.fromkeys(ALL, "success")
    assert run.partition_key == system.metadata(lab.name)["snapshot_id"]
    assert system.metadata(lab.name)["run_id"] == system.xcom(run, "train")["run_id"]
    assert_no_task_container(lab)


def test_two_projects_serve_beside_each_other_what_different_framework_versions_trained(
    lab: Lab, system: System
) -> None:
    first, second = system.metadata("digits"), system.metadata(lab.name)
    assert first["image_id"] != second["image_id"]
    versions = [system.mlflow_run(served["run_id"])["params"]["ultralytics"] for served in (first, second)]
    assert versions[0].startswith("8.4.")
    assert versions[1].startswith("8.3.")
    for project in ("digits", lab.name):
        assert system.predict(project, pictures()[0].png).status_code == 200


def test_more_pictures_bring_the_next_model_without_a_failed_request(
    lab: Lab, system: System, client: AskingClient
) -> None:
    before = system.metadata(lab.name)
    with client:
        known = lab.retrains()
        lab.put(pictures()[400:600])
        run = system.await_end(lab.await_new_retrain(known))
    assert run.state == "success", system.tasks(run)
    assert client.failed == {}
    assert client.answers["200"] > 100
    after = system.metadata(lab.name)
    assert after["run_id"] == system.xcom(run, "train")["run_id"] != before["run_id"]
    assert system.champion(lab.name) == after["run_id"]
    assert len(system.containers(lab.name, "api")) == 1


def test_a_person_puts_the_release_before_back_and_a_wrong_one_is_refused_with_those_there_are(
    lab: Lab, system: System, client: AskingClient
) -> None:
    now, first = system.metadata(lab.name), lab.retrains()[-1]
    refused = system.await_end(system.start("airlock__rollback", project=lab.name, release="yesterday's"))
    assert refused.state == "failed"
    assert system.attempts(refused, "put_back") == 1
    log = system.log(refused, "put_back")
    assert "cannot be put back; there are, the newest first: " in log
    assert system.xcom(first, "deploy")["release_id"] in log
    assert system.metadata(lab.name) == now
    with client:
        run = system.await_end(system.start("airlock__rollback", project=lab.name, reason="worse at night"))
    assert run.state == "success", system.log(run, "put_back")
    assert client.failed == {}
    assert system.metadata(lab.name)["run_id"] == system.xcom(first, "train")["run_id"] != now["run_id"]
    assert system.champion(lab.name) == system.metadata(lab.name)["run_id"]


def test_a_worse_model_is_kept_out_and_the_run_says_why(lab: Lab, system: System) -> None:
    before = system.metadata(lab.name)
    # Each digit under each label alike: what can still be learned from the order of the digits gains less than this.
    lab.configure(gate={"margin_over_majority": 0.0, "min_gain": 0.3})
    known = lab.retrains()
    lab.clear()
    for shift in range(10):
        lab.put(pictures()[shift:400:10], shift=shift)
    run = system.await_end(lab.await_new_retrain(known))
    states = system.tasks(run)
    assert run.state == "success", states
    assert states["keep_champion"] == "success"
    assert states["deploy"] == "skipped"
    assert "kept champion" in system.xcom(run, "gate")["reason"]
    assert system.metadata(lab.name) == before


def test_the_old_model_serves_when_a_new_container_never_gets_healthy(
    lab: Lab, system: System, client: AskingClient
) -> None:
    before = system.metadata(lab.name)
    # Too little memory for any API process: it is killed before it answers.
    lab.configure(api_memory_bytes="64m", gate={"margin_over_majority": -0.0, "min_gain": -1.0, "max_class_loss": 1.0})
    with client:
        run = system.await_end(lab.manual(before["snapshot_id"], reason="never gets healthy"))
    assert run.state == "failed"
    assert system.tasks(run)["deploy"] == "failed"
    log = system.log(run, "deploy")
    assert "not healthy after 20 attempts; the last: GET http://" in log
    assert f"last log lines of {lab.name}-" in log
    assert client.failed == {}
    assert system.metadata(lab.name) == before
    assert len(system.containers(lab.name, "api")) == 1
    assert_no_task_container(lab)
    told = await_("the alert", lambda: found if (found := alerts()).count(f"{lab.name}: ") else None, 30)
    assert f"{lab.name}: a release was rolled back, since " in told
    assert f"deploy failed (see its log): nothing is left to roll back; release {before['release_id']} of" in told


def test_a_release_that_crashes_under_its_traffic_is_rolled_back(lab: Lab, system: System) -> None:
    before, serving = system.metadata(lab.name), set(system.containers(lab.name, "api"))
    # Watched until it crashes, however long that takes.
    lab.configure(api_memory_bytes="512m", bake={"seconds": 300, "max_p99_ratio": 100.0})
    # The run whose containers never got healthy goes on with the same weights, now that they have memory.
    run = lab.retrains()[0]
    system.clear(run, "deploy", "verify", "promote", "rollback")

    def verified() -> bool:
        state = system.tasks(run)["verify"]
        if state == "running":
            for container in set(system.containers(lab.name, "api")) - serving:
                system.crash(container)
        return state in ("success", "failed")

    await_("verify to end", verified, 240)
    run = system.await_end(run)
    assert run.state == "failed"
    assert system.tasks(run)["rollback"] == "failed"
    said = f"verify failed (see its log): nothing is left to roll back; release {before['release_id']} of"
    assert said in system.log(run, "rollback", system.attempts(run, "rollback")), "verify gave the traffic back itself"
    assert system.metadata(lab.name) == before
    assert system.champion(lab.name) == before["run_id"]
    assert len(system.containers(lab.name, "api")) == 1


def test_each_state_of_the_bucket_started_one_run(lab: Lab) -> None:
    automatic = [run for run in lab.retrains() if run.run_id.startswith("asset_triggered")]
    # The first pictures, more of them, the poisoned ones; every upload took several looks of the watch.
    assert len(automatic) == 3
    assert len({run.partition_key for run in automatic}) == 3


def test_a_removed_project_loses_its_route_and_containers_and_its_file_brings_them_back(
    lab: Lab, system: System
) -> None:
    served = system.metadata(lab.name)
    release = served["release_id"]
    withdraw(system, lab.name)
    assert system.http.get(f"{system.front}/{lab.name}/health").status_code == 404
    assert system.containers(lab.name) == []
    assert system.read("airlock", f"releases/{lab.name}/{release}.json")
    assert system.s3.list_objects_v2(Bucket=system.bucket(lab.bucket))["KeyCount"] > 0
    lab.configure()
    assert system.metadata(lab.name) == served

"""The operators under Airflow's own task runner, on the real engine, through the gate."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.airflow_stub import AirflowStub, airflow_stub
from tests.integration.docker_engine import Gate, build, removed_volume, wait_until

ROOT = Path(__file__).parents[2]
DAG_FILE = Path(__file__).with_name("operator_dag.py")
CANARY = "canary-3f9c1d7e"

# Leaves as its result what the snapshot's EXPECTED_DIGEST says: a snapshot command of the test's choice.
ECHO_DOCKERFILE = b"""\
FROM airlock-test-task:latest
ENTRYPOINT ["python3", "-c", "import os; open('/results/result.json', 'w').write(os.environ['EXPECTED_DIGEST'])"]
"""


@dataclass(frozen=True)
class Ended:
    """A process of the task runner after its end."""

    output: str

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        lines = [line for line in self.output.splitlines() if line.startswith("OUTCOME ")]
        return [json.loads(line.removeprefix("OUTCOME ")) for line in lines]

    @property
    def outcome(self) -> dict[str, Any]:
        (outcome,) = self.outcomes
        return outcome


@dataclass(frozen=True)
class Lab:
    """An Airflow of the test's own; `asked` is what `operator_dag.py` reads, `airflow` its API."""

    environment: dict[str, str]
    airflow: AirflowStub

    def start(self, **asked: Any) -> subprocess.Popen[str]:
        environment = {**self.environment, "OPERATOR_TEST": json.dumps(asked)}
        return subprocess.Popen(
            [sys.executable, str(DAG_FILE)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip

    def run(self, **asked: Any) -> Ended:
        output, _ = self.start(**asked).communicate(timeout=110)
        return Ended(output)


@pytest.fixture
def lab(
    empty_home: Path, tmp_path: Path, gate: Gate, docker_client: docker.APIClient, task_image: str
) -> Iterator[Lab]:
    """An Airflow with the deployment's settings; no container of its task may be left after the test."""
    echo = build(docker_client, "airlock-test-echo:latest", {"Dockerfile": ECHO_DOCKERFILE})
    home = shutil.copytree(empty_home, tmp_path / "home")
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(DAG_FILE, dags)
    images = tmp_path / "images.json"
    images.write_text(json.dumps({"trainer": {"default": task_image, "echo": echo}, "api": task_image}))
    with removed_volume(docker_client, "airlock-cache"), airflow_stub() as airflow:
        yield Lab(
            {
                "AIRLOCK_AIRFLOW_URL": airflow.url,
                "AIRLOCK_WATCHDOG_PASSWORD": "stub",
                **os.environ,
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
                "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
                "AIRLOCK_DOCKER_URL": gate.url,
                "AIRLOCK_NETWORK": gate.network,
                "AIRLOCK_IMAGES_FILE": str(images),
                "AIRLOCK_S3_ENDPOINT_URL": "http://s3:9000",
                "AIRLOCK_S3_BUCKET_PREFIX": "pre-",
                "AIRLOCK_MLFLOW_URL": "http://mlflow:5000",
                "AIRLOCK_MLFLOW_PUBLIC_URL": "http://airlock.example:5000",
                "AIRLOCK_FRONT_URL": "http://haproxy:8000",
                "AIRLOCK_CODE_COMMIT": "0123abc",
                "AIRLOCK_CACHE_LIMIT": "200g",
                **{
                    f"AIRLOCK_S3_{role}_{key}": f"{CANARY}-{role}" if key.startswith("SECRET") else role
                    for role in ("AIRFLOW", "TRAINER", "API")
                    for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
                },
            },
            airflow,
        )
        for container in of_the_task(docker_client):
            docker_client.remove_container(container["Id"], force=True, v=True)


def of_the_task(docker_client: docker.APIClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = docker_client.containers(
        all=True, filters={"label": ["airlock.dag_id=digits__operator"]}
    )
    return found


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} did not come: {''.join(seen)}")


def test_the_result_is_the_xcom_and_the_container_was_told_what_the_contract_says(
    lab: Lab, docker_client: docker.APIClient
) -> None:
    outcome = lab.run(code="leave(env={k: v for k, v in os.environ.items() if 'SECRET' not in k})").outcome
    assert outcome["state"] == "success"
    told = outcome["result"]["env"]
    assert told["PROJECT"] == "digits"
    assert told["TRAIN_BUCKET"] == "pre-digits-train"
    assert told["AIRLOCK_BUCKET"] == "pre-airlock"
    assert told["DVC_BUCKET"] == "pre-dvc"
    assert told["S3_ENDPOINT_URL"] == "http://s3:9000"
    assert told["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert told["AWS_ACCESS_KEY_ID"] == "TRAINER"
    assert told["CODE_COMMIT"] == "0123abc"
    assert told["CACHE_LIMIT_BYTES"] == str(200 * 2**30)
    assert told["IMAGE_ID"].startswith("sha256:")
    assert told["AIRFLOW_TASK_ID"] == "container"
    assert told["RENDERED"] == "digits__operator"
    assert told["NUMBER"] == "7"
    assert of_the_task(docker_client) == []


def test_a_secret_shows_neither_in_the_log_nor_in_what_was_rendered(lab: Lab) -> None:
    ended = lab.run(code="print('key', os.environ['AWS_SECRET_ACCESS_KEY'], flush=True); fail('data', 'no good')")
    assert "no good" in ended.output
    assert "key ***" in ended.output, ended.output
    assert CANARY not in ended.output
    assert ended.outcome["rendered"]


def test_bad_data_is_not_retried_and_says_why(lab: Lab, docker_client: docker.APIClient) -> None:
    ended = lab.run(code="fail('data', 'class 7 is empty; add pictures')", retries=3)
    assert "class 7 is empty; add pictures" in ended.output
    assert (ended.outcome["state"], ended.outcome["try_number"]) == ("failed", 1)
    assert of_the_task(docker_client) == []


def test_an_unreachable_service_is_retried(lab: Lab, docker_client: docker.APIClient) -> None:
    code = "leave(ok=1) if os.environ['AIRFLOW_TRY_NUMBER'] == '2' else fail('unavailable', 'S3 is away')"
    ended = lab.run(code=code, retries=1)
    assert "S3 is away" in ended.output
    assert (ended.outcome["state"], ended.outcome["try_number"]) == ("success", 2)
    assert of_the_task(docker_client) == []


def test_a_timeout_stops_the_container_within_its_grace_and_leaves_none(
    lab: Lab, docker_client: docker.APIClient
) -> None:
    ended = lab.run(code="until_stopped()", timeout=4)
    assert ended.outcome["state"] == "failed"
    assert "AirflowTaskTimeout" in ended.output
    assert of_the_task(docker_client) == []


def test_a_killed_task_stops_its_container_and_shows_its_last_words(lab: Lab, docker_client: docker.APIClient) -> None:
    code = "import atexit; atexit.register(print, 'closing my run', flush=True); until_stopped()"
    process = lab.start(code=code)
    read_until(process, "waiting")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "closing my run" in output
    assert Ended(output).outcome["state"] == "failed"
    wait_until(lambda: of_the_task(docker_client) == [])


def test_a_task_killed_while_it_stops_its_container_leaves_none(lab: Lab, docker_client: docker.APIClient) -> None:
    deaf = "signal.signal(signal.SIGTERM, lambda *_: print('I stay', flush=True))"
    code = f"{deaf}\nprint('deaf from now on', flush=True)\nuntil('/never')"
    process = lab.start(code=code)
    read_until(process, "deaf from now on ")
    process.send_signal(signal.SIGTERM)
    read_until(process, "I stay ")
    process.kill()
    process.wait()
    wait_until(lambda: of_the_task(docker_client) == [])


@pytest.mark.parametrize(("state", "up"), [("running", True), ("failed", False)], ids=["running", "no answer"])
def test_a_restart_of_airflow_stops_no_container_and_the_next_attempt_goes_on_with_it(
    lab: Lab, docker_client: docker.APIClient, state: str, up: bool
) -> None:
    lab.airflow.state, lab.airflow.up = state, up
    code = "print('epoch 1', flush=True)\nuntil('/tmp/go')\nleave(host=os.uname().nodename)"
    process = lab.start(code=code)
    read_until(process, "epoch 1")
    process.send_signal(signal.SIGTERM)  # as Airflow does to its tasks when it is stopped, and SIGKILL soon after
    (before,) = of_the_task(docker_client)
    process.kill()
    process.wait()
    again = lab.start(code=code)
    read_until(again, "going on with the container")
    docker_client.exec_start(docker_client.exec_create(before["Id"], ["touch", "/tmp/go"])["Id"])
    output, _ = again.communicate(timeout=60)
    assert Ended(output).outcome["result"]["host"] == before["Id"][:12]
    assert of_the_task(docker_client) == []


def test_a_task_killed_in_the_middle_goes_on_with_the_same_container(lab: Lab, docker_client: docker.APIClient) -> None:
    code = "print('epoch 1', flush=True)\nuntil('/tmp/go')\nleave(host=os.uname().nodename)"
    process = lab.start(code=code)
    read_until(process, "epoch 1")
    process.kill()
    process.wait()
    (before,) = of_the_task(docker_client)
    again = lab.start(code=code)
    read_until(again, "going on with the container")
    read_until(again, "epoch 1")
    docker_client.exec_start(docker_client.exec_create(before["Id"], ["touch", "/tmp/go"])["Id"])
    output, _ = again.communicate(timeout=60)
    assert Ended(output).outcome["result"]["host"] == before["Id"][:12]
    assert of_the_task(docker_client) == []


RUN = {"run_id": "a" * 32, "experiment_id": "7"}
PAGE = f"http://airlock.example:5000/#/experiments/7/runs/{'a' * 32}"
LINKS = {
    "MLflow run": f"{PAGE}?workflowType=machine_learning",
    "Dataset report": f"{PAGE}/artifacts/preflight/report.html?workflowType=machine_learning",
}


def test_a_training_links_to_its_mlflow_run_and_to_the_report_on_its_dataset(lab: Lab) -> None:
    outcome = lab.run(training=f"leave(**{RUN})").outcome
    assert (outcome["state"], outcome["links"]) == ("success", LINKS)


def test_a_training_that_was_refused_has_the_links_too(lab: Lab) -> None:
    outcome = lab.run(training=f"fail('data', 'one class', **{RUN})").outcome
    assert (outcome["state"], outcome["links"]) == ("failed", LINKS)


def test_a_training_that_opened_no_run_has_no_links_and_fails_by_its_own_words(lab: Lab) -> None:
    ended = lab.run(training="fail('config', 'no such key')")
    assert "no such key" in ended.output
    assert not any(ended.outcome["links"].values())


def test_docker_that_is_down_is_said_with_the_next_step(lab: Lab) -> None:
    away = Lab({**lab.environment, "AIRLOCK_DOCKER_URL": "http://127.0.0.1:1"}, lab.airflow)
    ended = away.run(code="leave(answer=42)")
    assert ended.outcome["state"] == "failed"
    assert "check `docker compose ps docker-gate`" in ended.output


def test_each_snapshot_has_one_event_with_its_partition(lab: Lab) -> None:
    images = Path(lab.environment["AIRLOCK_IMAGES_FILE"])
    found = json.loads(images.read_text())
    images.write_text(json.dumps(found | {"trainer": {"default": found["trainer"]["echo"]}}))
    first, second = "20261123T171409123Z-c71581aa", "20261123T181409123Z-0a0a0a0a"

    def result(status: str, snapshot_id: str | None, digest: str) -> dict[str, Any]:
        return {
            "status": status, "snapshot_id": snapshot_id, "listing_digest": digest, "count": 3,
            "bytes": 9, "md5": "x.dir", "reason": "the listing is no longer the one that settled",
        }  # fmt: skip

    killed_before_its_event, again, changed, new, same_bytes_otherwise_uploaded = lab.run(
        snapshots=[
            result("existing", first, "d1"),
            result("existing", first, "d1"),
            result("changed", None, "d2"),
            result("created", second, "d2"),
            result("existing", second, "d3"),
        ]
    ).outcomes
    event = {"key": first, "extra": {"snapshot_id": first, "listing_digest": "d1", "count": 3}}
    assert (killed_before_its_event["state"], killed_before_its_event["events"]) == ("success", [event])
    assert (again["state"], again["events"]) == ("skipped", [event])
    assert (changed["state"], changed["events"]) == ("skipped", [event])
    assert new["events"][1]["key"] == second
    # The watch's baseline moves; without a partition no run starts.
    last = same_bytes_otherwise_uploaded["events"][2]
    assert (last["key"], last["extra"]["listing_digest"]) == (None, "d3")

"""MLflow, S3 or Docker away, tasks killed, objects altered: told, tried again, nothing lost, and the old model serves.

One story, told in order: the first model in spite of a killed task, then a run that meets every outage at every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from include.snapshots import taken_at
from tests.e2e.lab import Lab, pictures
from tests.e2e.system import S3_AWAY, Event, Run, System, await_, compose, container_events, docker

KILL = """
import os, pathlib, signal, sys
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        command = (folder / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        continue
    if command.startswith(f"airflow worker -- {sys.argv[1]}".encode()):
        os.kill(int(folder.name), signal.SIGKILL)
        print("killed")
"""

# One of many alike: `make bench-faults` runs these too.
extended = pytest.mark.extended
MLFLOW_AWAY = "failed at MLflow http://mlflow:5000"
DOCKER_AWAY = "Docker does not answer at tcp://docker-gate:2375"


@pytest.fixture(scope="module", autouse=True)
def project(lab: Lab) -> None:
    """A project that tries often, and soon again."""
    lab.configure(retries=12, retry_delay_seconds=4)


def test_a_task_killed_in_the_middle_of_training_goes_on_in_one_container_to_one_finished_run(
    lab: Lab, system: System
) -> None:
    lab.put(pictures()[:400])
    run = lab.await_new_retrain([])
    system.await_task(run, "train", "running")
    await_("an epoch in MLflow", lambda: any(r["data"].get("metrics") for r in system.mlflow_runs(run)), 120)
    (before,) = system.containers(lab.name, "task")
    for service in ("docker-gate", "haproxy"):  # the engine's socket, and the front door's
        assert not system.mounted(before) & system.mounted(system.container_of(service))
    assert "killed" in docker(
        "exec", system.container_of("airflow-scheduler"), "python3", "-c", KILL, system.instance_id(run, "train")
    )
    run = system.await_end(run)
    assert run.state == "success", system.tasks(run)
    assert system.attempts(run, "train") == 2
    assert f"going on with the container found name={before}" in system.log(run, "train", 2)
    assert [r["info"]["status"] for r in system.mlflow_runs(run)] == ["FINISHED"]
    assert system.containers(lab.name, "task") == []
    assert system.metadata(lab.name)["run_id"] == system.xcom(run, "train")["run_id"]


@pytest.fixture(scope="module")
def containers_made(lab: Lab) -> Iterator[Callable[[], list[Event]]]:
    """Of trainings of this project, from now on."""
    filters = (f"label=airlock.project={lab.name}", "label=airlock.task_id=train", "event=create")
    with container_events(*filters) as events:
        yield events


@pytest.fixture(scope="module")
def long_training(lab: Lab, system: System, containers_made: Callable[[], list[Event]]) -> Run:
    """A run in the middle of a training, of which enough is left for two times of going on."""
    run = lab.manual(system.metadata(lab.name)["snapshot_id"], epochs=40, reason="Airflow dies in the middle of it")
    system.await_task(run, "train", "running")
    await_("an epoch in MLflow", lambda: any(r["data"].get("metrics") for r in system.mlflow_runs(run)), 120)
    return run


@contextmanager
def goes_on(system: System, run: Run) -> Iterator[None]:
    """Whatever is done meanwhile, another attempt follows the same container afterwards, its log live.

    The container is paused until it is found: on a fast machine it would end before Airflow is back.
    """
    (container,) = system.containers(run.dag_id.removesuffix("__retrain"), "task")
    before = system.attempts(run, "train")

    def since_found() -> str:
        """The log of the attempt that found the container, from there on; empty: none has."""
        attempt = system.attempts(run, "train")
        if attempt <= before:
            return ""
        _, found, live = system.log(run, "train", attempt).partition(f"found name={container}")
        return found + live

    docker("pause", container)
    try:
        yield
        await_(f"an attempt after {before} to find {container}", since_found, 240)
    finally:
        docker("unpause", container)
    await_(f"an epoch in the log of the attempt that found {container}", lambda: "epoch=" in since_found(), 60)


def test_a_kill_of_scheduler_and_triggerer_in_the_middle_of_training_goes_on_in_the_same_container(
    system: System, long_training: Run
) -> None:
    with goes_on(system, long_training):
        for service in ("airflow-scheduler", "airflow-triggerer"):
            system.kill(service)


def test_a_restart_of_all_of_airflow_in_the_middle_of_training_goes_on_in_the_same_container_to_one_finished_run(
    lab: Lab, system: System, long_training: Run, containers_made: Callable[[], list[Event]]
) -> None:
    services = [f"airflow-{part}" for part in ("api-server", "scheduler", "dag-processor", "triggerer")]
    with goes_on(system, long_training):
        compose("restart", *services)
        system.await_airflow()
    run = system.await_end(long_training)
    assert run.state == "success", system.tasks(run)
    assert [r["info"]["status"] for r in system.mlflow_runs(run)] == ["FINISHED"]
    assert system.xcom(run, "train")["run_id"] == system.mlflow_runs(run)[0]["info"]["run_id"]
    assert len(containers_made()) == 1, "at no moment a second one"
    assert system.containers(lab.name, "task") == []


@pytest.fixture(scope="module")
def waiting(lab: Lab, system: System) -> Iterator[Run]:
    """A manual run on a project that serves, which waits before its training."""
    before = system.metadata(lab.name)
    with system.held("gpu"):
        run = lab.manual(before["snapshot_id"], reason="meets every outage")
        system.await_task(run, "gpu_check", "success")
        yield run


def await_failed_attempt(system: System, run: Run, task: str, tried: int, service: str) -> str:
    """Waits until the attempt after these has failed while the service is away; returns its log."""
    await_(
        f"{task} to fail while {service} is away",
        lambda: system.attempts(run, task) > tried and system.tasks(run)[task] in ("up_for_retry", "failed"),
        90,
    )
    return system.log(run, task, tried + 1)


def assert_outage_is_survived(system: System, run: Run, task: str, pool: str, service: str, words: str) -> None:
    """One more attempt of the held task fails while the service is away, saying so; what served goes on serving."""
    project = run.dag_id.removesuffix("__retrain")
    system.await_task(run, task, "scheduled")
    before, tried = system.metadata(project), system.attempts(run, task) - 1  # a held attempt counts already
    with system.down(service):
        system.set_slots(pool, 1)
        try:
            log = await_failed_attempt(system, run, task, tried, service)
        finally:
            system.set_slots(pool, 0)
        assert words in log
        assert system.predict(project, pictures()[0].png).status_code == 200
        assert system.metadata(project) == before


@pytest.mark.parametrize(
    ("service", "words"),
    [
        pytest.param("mlflow", "did not open a run", marks=extended),
        pytest.param("s3", "Is the server up and reachable from here?", marks=extended),
        ("docker-gate", DOCKER_AWAY),
    ],
)
def test_an_outage_at_the_start_of_training_is_told_and_tried_again(
    system: System, waiting: Run, service: str, words: str
) -> None:
    assert_outage_is_survived(system, waiting, "train", "gpu", service, words)


@pytest.fixture(scope="module")
def released(system: System, waiting: Run) -> Iterator[Run]:
    """The same run; its release goes on when the pool `deploy` gets a slot."""
    with system.held("deploy"):
        system.set_slots("gpu", 1)
        system.await_task(waiting, "deploy", "scheduled")
        yield waiting


@pytest.mark.parametrize(
    ("service", "words"),
    [("mlflow", MLFLOW_AWAY), pytest.param("s3", S3_AWAY, marks=extended), ("docker-gate", DOCKER_AWAY)],
)
def test_an_outage_at_the_deploy_is_told_and_tried_again(
    system: System, released: Run, service: str, words: str
) -> None:
    assert_outage_is_survived(system, released, "deploy", "deploy", service, words)


def test_an_outage_at_the_verification_is_told_and_tried_again(system: System, released: Run) -> None:
    system.let_through(released, "deploy", "deploy")
    assert_outage_is_survived(system, released, "verify", "deploy", "s3", S3_AWAY)
    system.let_through(released, "verify", "deploy")


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("mlflow", MLFLOW_AWAY),
        pytest.param("s3", S3_AWAY, marks=extended),
        pytest.param("docker-gate", DOCKER_AWAY, marks=extended),
    ],
)
def test_an_outage_at_the_promotion_is_told_and_tried_again(
    system: System, released: Run, service: str, words: str
) -> None:
    assert_outage_is_survived(system, released, "promote", "deploy", service, words)


def test_after_all_outages_the_run_ends_well_with_nothing_lost_and_nothing_left(
    lab: Lab, system: System, released: Run
) -> None:
    system.set_slots("deploy", 1)
    run = system.await_end(released)
    assert run.state == "success", system.tasks(run)
    finished = [r for r in system.mlflow_runs(run) if r["info"]["status"] == "FINISHED"]
    assert [r["info"]["run_id"] for r in finished] == [system.metadata(lab.name)["run_id"]]
    assert system.champion(lab.name) == system.metadata(lab.name)["run_id"]
    assert system.containers(lab.name, "task") == []
    assert len(system.containers(lab.name, "api")) == 1


@pytest.mark.parametrize(
    ("task", "service", "words"),
    [
        pytest.param("choose_snapshot", "s3", S3_AWAY, marks=extended),
        pytest.param("gpu_check", "docker-gate", DOCKER_AWAY, marks=extended),
        ("register", "mlflow", MLFLOW_AWAY),
        pytest.param("register", "s3", S3_AWAY, marks=extended),
        pytest.param("evaluate", "mlflow", "could not be asked for run", marks=extended),
        ("evaluate", "s3", S3_AWAY),
        pytest.param("evaluate", "docker-gate", DOCKER_AWAY, marks=extended),
    ],
)
def test_an_outage_at_another_stage_is_told_and_done_again(
    lab: Lab, system: System, waiting: Run, task: str, service: str, words: str
) -> None:
    before, registered, tried = (
        system.metadata(lab.name),
        system.xcom(waiting, "register"),
        system.attempts(waiting, task),
    )
    with system.down(service):
        system.clear(waiting, task)
        assert words in await_failed_attempt(system, waiting, task, tried, service)
    if system.tasks(waiting)[task] == "failed":  # gpu_check is not tried again by itself
        system.clear(waiting, task)
    run = system.await_end(waiting)
    assert run.state == "success"
    assert system.xcom(run, "register") == registered
    assert system.metadata(lab.name) == before


def test_a_snapshot_is_taken_when_docker_is_back(lab: Lab, system: System) -> None:
    known = lab.retrains()

    def failed() -> Run | None:
        return next((w for w in system.runs(watch) if system.tasks(w).get("snapshot") == "up_for_retry"), None)

    watch = f"{lab.name}__watch"
    with system.down("docker-gate"):
        lab.put(pictures()[400:410])
        run = await_("a failed snapshot", failed, 120)
        assert DOCKER_AWAY in system.log(run, "snapshot", 1)
    retrain = system.give_up(lab.await_new_retrain(known))
    assert system.read("airlock", f"snapshots/{lab.name}/{retrain.partition_key}.json")


@contextmanager
def altered(system: System, md5: str) -> Iterator[None]:
    """A locked object holds other bytes under its name meanwhile."""
    bucket, key = system.bucket("dvc"), f"models/files/md5/{md5[:2]}/{md5[2:]}"
    content = system.read("dvc", key)
    system.s3.put_object(Bucket=bucket, Key=key, Body=b"\0" + content[1:])
    try:
        yield
    finally:
        system.s3.put_object(Bucket=bucket, Key=key, Body=content)


@extended
def test_weights_altered_in_the_store_are_neither_released_nor_registered(lab: Lab, system: System) -> None:
    before = system.metadata(lab.name)
    with system.held("deploy"):
        # Another learning rate: the same training again would give the very weights that serve.
        run = lab.manual(before["snapshot_id"], learning_rate=0.0021, reason="its weights are altered")
        system.await_task(run, "deploy", "scheduled")
        trained = system.xcom(run, "train")
        with altered(system, trained["dvc_hash_onnx"]):
            system.set_slots("deploy", 1)
            run = system.await_end(run)
            assert run.state == "failed"
            assert system.attempts(run, "deploy") == 1
            md5 = trained["dvc_hash_onnx"]
            assert f"not {md5} as its name promises: it was altered" in system.log(run, "deploy")
            assert system.metadata(lab.name) == before
            assert len(system.containers(lab.name)) == 1
            system.clear(run, "register")
            run = system.await_end(run)
    assert system.tasks(run)["register"] == "failed"
    log = system.log(run, "register", 2)
    assert f"the ONNX weights object was altered in the store: s3://{system.bucket('dvc')}/models/files/md5/" in log
    assert f"{md5[:2]}/{md5[2:]}" in log


@extended
def test_of_two_runs_gated_against_the_same_champion_the_second_is_compared_with_the_first(
    lab: Lab, system: System
) -> None:
    first = next(run.partition_key for run in reversed(lab.retrains()) if run.partition_key)
    champion = system.metadata(lab.name)["release_id"]
    with system.held("deploy"):
        known = lab.retrains()
        lab.put(pictures()[410:430])
        newer = lab.await_new_retrain(known)
        at = taken_at(first)
        answer = system.airflow(
            "POST",
            "/backfills",
            {
                "dag_id": f"{lab.name}__retrain",
                "from_date": (at - timedelta(milliseconds=1)).isoformat(),
                "to_date": (at + timedelta(milliseconds=1)).isoformat(),
                "reprocess_behavior": "completed",
                "max_active_runs": 1,
                "dag_run_conf": {"deploy": "yes"},
            },
        )
        assert answer.status_code == 200, answer.text
        runs = [newer, lab.await_new_retrain([*known, newer])]
        for run in runs:
            system.await_task(run, "deploy", "scheduled")
        assert len({system.xcom(run, "gate")["champion_version"] for run in runs}) == 1
    ended = [system.await_end(run) for run in runs]
    assert [run.state for run in ended] == ["success", "success"], [system.tasks(run) for run in ended]
    releases = {system.xcom(run, "deploy")["previous_release_id"] for run in runs}
    assert champion in releases
    assert len(releases) == 2  # one replaced the champion, the other replaced that one
    logs = "".join(system.log(run, "deploy", n + 1) for run in runs for n in range(system.attempts(run, "deploy")))
    assert "serves now: evaluate and gate it again" in logs

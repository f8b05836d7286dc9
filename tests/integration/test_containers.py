"""The container runner on the real engine, through the gate."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from include import containers
from include.container_results import ContainerFailure
from include.containers import DockerUnavailable, Pool, TaskContainer, TaskInstance
from tests.integration.docker_engine import Gate, wait_until

MIB = 1 << 20

# A process that follows a container, as a task of Airflow does, and that a test may kill.
FOLLOWER = """
import sys, docker
from include import containers
from include.containers import TaskContainer, TaskInstance
url, run_id, image, network, code = sys.argv[1:]
spec = TaskContainer(TaskInstance("digits__retrain", run_id, "train"), "digits", image, (code,), network, 64 << 20,
                     cache=False, environment={"RESULT_PATH": "/results/result.json"}, stop_grace_seconds=5)
containers.run(docker.APIClient(base_url=url), spec, lambda line: print(line, flush=True))
"""


@pytest.fixture
def client(gate: Gate) -> Iterator[docker.APIClient]:
    """docker-py through the gate."""
    client = docker.APIClient(base_url=gate.url, version="auto")
    yield client
    client.close()


@pytest.fixture
def spec(docker_client: docker.APIClient, gate: Gate, task_image: str) -> Iterator[Callable[..., TaskContainer]]:
    """Specs of one task instance of the test's own; nothing of it is left after the test, and nothing may be."""
    run_id = f"test__{uuid.uuid4().hex}"

    def make(code: str, **given: Any) -> TaskContainer:
        defaults: dict[str, Any] = {
            "instance": TaskInstance("digits__retrain", run_id, "train"),
            "project": "digits",
            "image": task_image,
            "command": (f"from task import *\n{code}",),
            "network": gate.network,
            "memory_bytes": 64 * MIB,
            "cache": False,
            "stop_grace_seconds": 5,
            "environment": {"RESULT_PATH": "/results/result.json"},
        }
        return TaskContainer(**(defaults | given))

    yield make
    left = all_of(docker_client, run_id)
    for found in left:
        docker_client.remove_container(found["Id"], force=True, v=True)


def all_of(docker_client: docker.APIClient, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = docker_client.containers(all=True, filters={"label": [f"airlock.run_id={run_id}"]})
    return found


def nothing_is_left(docker_client: docker.APIClient, spec: TaskContainer) -> bool:
    return all_of(docker_client, spec.instance.run_id) == []


def ignore(line: str) -> None:
    """A log line that nobody reads."""


def test_a_container_gives_its_lines_and_its_result_and_is_gone(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    lines: list[str] = []
    task = spec("print('to stdout', flush=True); print('to stderr', file=sys.stderr); leave(answer=42)")
    assert containers.run(client, task, lines.append) == {"answer": 42}
    assert sorted(lines) == ["to stderr", "to stdout"]
    assert nothing_is_left(docker_client, task)


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [("data", False), ("unavailable", True), ("internal", True), ("gpu", False), ("config", False)],
)
def test_a_failing_container_says_why_in_its_own_words(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    kind: str,
    retryable: bool,
) -> None:
    task = spec(f"fail('{kind}', 'class 7 is empty; add pictures')")
    with pytest.raises(ContainerFailure, match="class 7 is empty; add pictures") as failure:
        containers.run(client, task, ignore)
    assert (failure.value.kind, failure.value.retryable) == (kind, retryable)
    assert nothing_is_left(docker_client, task)


def test_a_container_over_its_memory_names_the_limit(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    task = spec("hog = bytearray(256 << 20)", memory_bytes=48 * MIB)
    with pytest.raises(ContainerFailure, match="memory limit of 48 MiB") as failure:
        containers.run(client, task, ignore)
    assert failure.value.retryable
    assert nothing_is_left(docker_client, task)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "left no result"),
        ("open('/results/result.json', 'w').write('not json')", "is not JSON"),
        ("open('/results/result.json', 'w').write('{\"a\": NaN}')", "NaN"),
        ("open('/results/result.json', 'w').write('\"' + 'x' * (5 << 20) + '\"')", "larger than"),
        ("os.symlink('/etc/passwd', '/results/result.json')", "not a plain file"),
    ],
    ids=["none", "broken", "NaN", "too large", "a link"],
)
def test_a_container_without_a_good_result_has_failed(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    code: str,
    words: str,
) -> None:
    task = spec(code)
    with pytest.raises(ContainerFailure, match=words):
        containers.run(client, task, ignore)
    assert nothing_is_left(docker_client, task)


def test_a_gpu_without_the_toolkit_fails_at_once_and_says_what_to_install(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    task = spec("leave(answer=42)", gpu=True)
    with pytest.raises(ContainerFailure, match="install nvidia-container-toolkit") as failure:
        containers.run(client, task, ignore)
    assert (failure.value.kind, failure.value.retryable) == ("gpu", False)
    assert nothing_is_left(docker_client, task)


def test_an_image_that_is_gone_is_named_with_the_next_step(client: docker.APIClient) -> None:
    with pytest.raises(ContainerFailure, match=r"airlock-trainer-default:gone.*make up"):
        containers.image_id(client, "airlock-trainer-default:gone")


def test_the_container_runs_as_nobody_in_particular_with_nothing_to_write_but_what_it_needs(
    client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    result = containers.run(
        client,
        spec(
            "lines = open('/proc/self/status').read().splitlines()\n"
            "status = dict(line.split(':\\t') for line in lines if ':\\t' in line)\n"
            "def writable(path):\n"
            "    try: open(path, 'w').close(); return True\n"
            "    except OSError: return False\n"
            "leave(uid=os.getuid(), caps=status['CapEff'], new=status['NoNewPrivs'], init=os.getppid(),"
            " paths=[p for p in ('/x', '/etc/x', '/home/airlock/x', '/tmp/x', '/results/x') if writable(p)])"
        ),
        ignore,
    )
    assert result == {
        "uid": 10001,
        "caps": "0000000000000000",
        "new": "1",
        "init": 1,
        "paths": ["/tmp/x", "/results/x"],
    }


def test_a_secret_reaches_the_container(client: docker.APIClient, spec: Callable[..., TaskContainer]) -> None:
    task = spec("leave(length=len(os.environ['KEY']))", secrets={"KEY": "canary"})
    assert containers.run(client, task, ignore) == {"length": 6}


@pytest.fixture
def follower(gate: Gate, task_image: str) -> Iterator[Callable[[TaskContainer], subprocess.Popen[str]]]:
    """Starts a process that runs a spec; its stdout is the container's lines."""
    started: list[subprocess.Popen[str]] = []

    def start(task: TaskContainer) -> subprocess.Popen[str]:
        arguments = [gate.url, task.instance.run_id, task_image, gate.network, task.command[0]]
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOWER, *arguments],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return (line.rstrip("\n") for line in process.stdout)


def test_the_same_container_goes_on_after_its_follower_was_killed(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    follower: Callable[[TaskContainer], subprocess.Popen[str]],
) -> None:
    task = spec("print('epoch 1', flush=True)\nuntil('/tmp/go')\nprint('epoch 2', flush=True)\nleave(answer=42)")
    process = follower(task)
    assert next(lines_of(process)) == "epoch 1"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (before,) = all_of(docker_client, task.instance.run_id)
    assert before["State"] == "running"

    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line == "epoch 1":
            run_in(docker_client, before["Id"], "touch /tmp/go")

    adopted: list[str] = []
    assert containers.run(client, task, on_line, adopted.append) == {"answer": 42}
    assert adopted == [before["Id"]]
    assert lines == ["epoch 1", "epoch 2"]
    assert nothing_is_left(docker_client, task)


def test_a_container_whose_task_died_keeps_its_place_in_the_pool(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pool(f"pool-{uuid.uuid4().hex}", 1)
    orphan = spec("until('/tmp/go')\nleave(answer=1)", pool=pool)
    container_id = orphaned(client, orphan)
    other = TaskInstance(orphan.instance.dag_id, orphan.instance.run_id, "train", 7)
    running: list[int] = []

    def on_container(_: str) -> None:
        running.append(len(docker_client.containers(filters={"label": [f"airlock.pool={pool.name}"]})))

    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as pool_of_threads:
        task = spec("leave(answer=2)", pool=pool, instance=other)
        result = pool_of_threads.submit(containers.run, client, task, print, on_container)
        try:
            wait_until(lambda: f"waiting for a place in the pool {pool.name}, which is taken by" in caplog.text)
            assert not result.done()
        finally:
            run_in(docker_client, container_id, "touch /tmp/go")
        assert result.result(30) == {"answer": 2}
    assert running == [0], "it was made when the other had ended"
    assert containers.run(client, orphan, print) == {"answer": 1}, "which its own next attempt takes"


def test_two_that_wait_for_one_place_do_not_both_take_it(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pool(f"pool-{uuid.uuid4().hex}", 2)
    code, one = "until('/tmp/go')\nleave(answer=1)", spec("").instance
    tasks = [spec(code, pool=pool, instance=replace(one, map_index=number)) for number in range(4)]
    orphans = [orphaned(client, task) for task in tasks[:2]]
    both = threading.Barrier(2)
    made: list[str] = []

    def on_container(container_id: str) -> None:
        made.append(container_id)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # for the other, should it have taken the place too

    caplog.set_level("INFO")
    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(containers.run, client, task, print, on_container) for task in tasks[2:]]
        wait_until(lambda: caplog.text.count(f"waiting for a place in the pool {pool.name}") == 2)
        run_in(docker_client, orphans[0], "touch /tmp/go")
        wait_until(lambda: bool(made) and is_running(docker_client, made[0]))
        assert len(made) == 1
        for container_id in (made[0], orphans[1]):
            run_in(docker_client, container_id, "touch /tmp/go")
        wait_until(lambda: len(made) == 2 and is_running(docker_client, made[1]))
        run_in(docker_client, made[1], "touch /tmp/go")
        assert [result.result(30) for result in results] == [{"answer": 1}] * 2


def is_running(docker_client: docker.APIClient, container_id: str) -> bool:
    return bool(docker_client.inspect_container(container_id)["State"]["Running"])


def run_in(docker_client: docker.APIClient, container_id: str, command: str) -> None:
    docker_client.exec_start(docker_client.exec_create(container_id, ["sh", "-c", command])["Id"])


def orphaned(client: docker.APIClient, task: TaskContainer) -> str:
    """A container as a killed follower leaves it, while it runs."""
    container_id = containers._create(client, task)
    client.start(container_id)
    return container_id


def abandoned(client: docker.APIClient, task: TaskContainer) -> str:
    """A container as a killed follower leaves it, after its end."""
    container_id = orphaned(client, task)
    client.wait(container_id)
    return container_id


def test_a_result_that_nobody_read_is_taken(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    task = spec("leave(made=os.environ['TRY'])", environment={"RESULT_PATH": "/results/result.json", "TRY": "1"})
    abandoned(client, task)
    again = spec("leave(made='anew')")
    assert containers.run(client, again, ignore) == {"made": "1"}
    assert nothing_is_left(docker_client, task)


def test_a_container_that_failed_unseen_is_started_anew(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    abandoned(client, spec("fail('internal', 'unseen')"))
    task = spec("leave(made='anew')")
    assert containers.run(client, task, ignore) == {"made": "anew"}
    assert nothing_is_left(docker_client, task)


def test_a_container_that_was_never_started_is_replaced(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer]
) -> None:
    containers._create(client, spec("fail('internal', 'old')"))
    task = spec("leave(made='anew')")
    assert containers.run(client, task, ignore) == {"made": "anew"}
    assert nothing_is_left(docker_client, task)


@pytest.mark.parametrize("removed", [False, True])
def test_a_container_that_its_former_follower_is_stopping_is_not_the_end_of_the_next(
    removed: bool,
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    follower: Callable[[TaskContainer], subprocess.Popen[str]],
    gate: Gate,
) -> None:
    old = spec("until_stopped()")
    process = follower(old)
    assert next(lines_of(process)) == "waiting"
    process.kill()
    process.wait()
    (before,) = all_of(docker_client, old.instance.run_id)
    new = spec("leave(made='anew')")

    def stop_the_old(container_id: str) -> None:
        if container_id == before["Id"] and removed:
            stopping = docker.APIClient(base_url=gate.url)
            threading.Thread(target=containers.stop_and_remove, args=(stopping, container_id, 5), daemon=True).start()
        elif container_id == before["Id"]:
            client.stop(container_id, timeout=5)

    assert containers.run(client, new, ignore, stop_the_old) == {"made": "anew"}
    assert nothing_is_left(docker_client, new)


def test_a_container_is_followed_on_after_the_gate_was_restarted(
    client: docker.APIClient, docker_client: docker.APIClient, spec: Callable[..., TaskContainer], gate: Gate
) -> None:
    steps = "".join(f"print({n}, flush=True)\nuntil('/tmp/{n}')\n" for n in range(2))
    task = spec(f"{steps}print('after', flush=True)\nleave(answer=42)")
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.isdigit():
            (found,) = all_of(docker_client, task.instance.run_id)
            docker_client.restart(gate.container_id, timeout=5)
            run_in(docker_client, found["Id"], f"touch /tmp/{line}")

    assert containers.run(client, task, on_line) == {"answer": 42}
    assert lines == ["0", "1", "after"]
    assert nothing_is_left(docker_client, task)


def test_docker_away_for_too_long_is_said_and_the_container_left_to_the_next_attempt(
    client: docker.APIClient,
    docker_client: docker.APIClient,
    spec: Callable[..., TaskContainer],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = spec("print('before', flush=True)\nuntil('/tmp/go')\nleave(answer=42)")
    monkeypatch.setattr(containers, "OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr(containers, "RETRY_SECONDS", 0.1)
    try:
        with pytest.raises(DockerUnavailable, match="docker compose ps docker-gate"):
            containers.run(client, task, lambda line: docker_client.stop(gate.container_id, timeout=5))
    finally:
        docker_client.start(gate.container_id)  # other tests work through it
    (found,) = all_of(docker_client, task.instance.run_id)
    assert found["State"] == "running"
    run_in(docker_client, found["Id"], "touch /tmp/go")
    monkeypatch.setattr(containers, "OUTAGE_SECONDS", 60)
    assert containers.run(client, task, ignore) == {"answer": 42}
    assert nothing_is_left(docker_client, task)

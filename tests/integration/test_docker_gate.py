"""The gate before the real engine."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors
import pytest
from docker.types import Mount

from include import containers
from tests.integration.docker_engine import BASE, GATE_FOLDER, Gate, removed_volume, wait_until
from tests.integration.ports import free_ports

LEAVE = "from task import *; print('hello'); leave(answer=42)"


@pytest.fixture
def client(gate: Gate) -> Iterator[docker.APIClient]:
    """docker-py as Airflow's containers have it: through the gate."""
    client = docker.APIClient(base_url=gate.url, version="auto")
    yield client
    client.close()


@pytest.fixture
def make(client: docker.APIClient, gate: Gate, task_image: str) -> Iterator[Callable[..., str]]:
    """Makes a task's container through the gate; `host` changes its host config."""
    made: list[str] = []

    def make(code: str, *, host: dict[str, Any] | None = None, **config: Any) -> str:
        limits = containers.host_config(
            client,
            network=gate.network,
            memory_bytes=64 << 20,
            pids_limit=64,
            shm_bytes=1 << 20,
            mounts=[Mount("/results", None)],
        )
        given = {
            "image": task_image,
            "command": [code],
            "name": f"airlock-digits-try-{uuid.uuid4().hex[:10]}",
            "environment": {"RESULT_PATH": "/results/result.json"},
            "labels": {"airlock.managed": "true", "airlock.project": "digits", "airlock.role": "task"},
            "host_config": {**limits, **(host or {})},
        }
        made.append(client.create_container(**(given | config))["Id"])
        return made[-1]

    yield make
    for container_id in made:
        containers.remove(client, container_id)


@pytest.fixture
def foreign(docker_client: docker.APIClient) -> Iterator[str]:
    """A container that runs and is none of ours, as Postgres is."""
    name = f"foreign-{uuid.uuid4().hex[:8]}"
    created = docker_client.create_container(BASE, ["sleep", "600"], name=name, labels={"secret": "yes"})
    docker_client.start(created["Id"])
    yield name
    docker_client.remove_container(created["Id"], force=True)


def raw(gate: Gate, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; the status and the body of the first answer."""
    url = urlsplit(gate.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def message(refusal: pytest.ExceptionInfo[docker.errors.APIError]) -> str:
    return str(refusal.value.explanation)


def test_a_container_is_made_started_followed_read_and_removed(
    client: docker.APIClient, docker_client: docker.APIClient, make: Callable[..., str]
) -> None:
    container_id = make(LEAVE)
    client.start(container_id)
    assert b"hello\n" in list(client.logs(container_id, stream=True, follow=True))
    assert client.wait(container_id)["StatusCode"] == 0
    chunks, stat = client.get_archive(container_id, "/results/result.json")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks)), mode="r:") as tar:
        assert json.loads(tar.extractfile(stat["name"]).read()) == {"answer": 42}  # type: ignore[union-attr]
    inside = docker_client.inspect_container(container_id)
    assert inside["Config"]["User"] == "10001:10001"
    volume = next(mount["Name"] for mount in inside["Mounts"] if mount["Destination"] == "/results")
    client.remove_container(container_id, force=True, v=True)
    with pytest.raises(docker.errors.NotFound):
        docker_client.inspect_container(container_id)
    with pytest.raises(docker.errors.NotFound):
        docker_client.inspect_volume(volume)


def test_an_api_container_may_keep_its_weights_and_come_back(
    client: docker.APIClient, docker_client: docker.APIClient, gate: Gate, make: Callable[..., str]
) -> None:
    limits = containers.host_config(
        client, network=gate.network, memory_bytes=64 << 20, pids_limit=64, shm_bytes=1 << 20,
        mounts=[Mount("/weights", "airlock-weights")], restart=True,
    )  # fmt: skip
    labels = {"airlock.managed": "true", "airlock.project": "gate-test", "airlock.role": "api"}
    with removed_volume(docker_client, "airlock-weights"):
        container_id = make(LEAVE, name="gate-test-blue-1", labels=labels, host_config=limits)
        made = docker_client.inspect_container(container_id)
        assert made["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert made["Mounts"][0]["Name"] == "airlock-weights"
        containers.remove(client, container_id)


def test_a_foreign_container_is_neither_seen_nor_touched(
    client: docker.APIClient, docker_client: docker.APIClient, foreign: str
) -> None:
    names = [name for found in client.containers(all=True) for name in found["Names"]]
    assert f"/{foreign}" not in names
    for touch in (
        client.inspect_container,
        client.logs,
        client.start,
        client.stop,
        client.kill,
        client.wait,
        lambda name: client.remove_container(name, force=True),
        lambda name: client.get_archive(name, "/results"),
    ):
        with pytest.raises(docker.errors.NotFound) as refusal:
            touch(foreign)
        assert "docker-gate" in message(refusal)
    assert docker_client.inspect_container(foreign)["State"]["Running"]


def test_a_list_cannot_be_widened_by_its_own_filter(client: docker.APIClient, foreign: str) -> None:
    assert client.containers(all=True, filters={"label": ["secret=yes"]}) == []
    assert client.containers(all=True, filters={"name": [foreign]}) == []


def test_a_privileged_container_is_refused_by_name(make: Callable[..., str]) -> None:
    with pytest.raises(docker.errors.APIError) as refusal:
        make(LEAVE, host={"Privileged": True})
    assert refusal.value.status_code == 403
    assert "HostConfig.Privileged" in message(refusal)


def test_a_container_of_a_foreign_image_is_refused(make: Callable[..., str]) -> None:
    with pytest.raises(docker.errors.NotFound) as refusal:
        make(LEAVE, image=BASE)
    assert "airlock.image" in message(refusal)


def test_a_container_on_another_network_is_refused(make: Callable[..., str]) -> None:
    with pytest.raises(docker.errors.APIError, match="403"):
        make(LEAVE, host={"NetworkMode": "bridge"})


def test_other_paths_of_a_container_of_ours_cannot_be_read(client: docker.APIClient, make: Callable[..., str]) -> None:
    container_id = make(LEAVE)
    for path in ("/etc/passwd", "/results/../etc/passwd", "/"):
        with pytest.raises(docker.errors.APIError, match="403"):
            client.get_archive(container_id, path)


def test_nothing_can_be_run_in_a_container_of_ours(client: docker.APIClient, make: Callable[..., str]) -> None:
    with pytest.raises(docker.errors.APIError, match="403"):
        client.exec_create(make(LEAVE), ["id"])


def test_an_error_of_docker_passes_unchanged(
    client: docker.APIClient, docker_client: docker.APIClient, make: Callable[..., str]
) -> None:
    container_id = make(LEAVE)
    said = []
    for asked in (client, docker_client):
        with pytest.raises(docker.errors.NotFound) as error:
            asked.get_archive(container_id, "/results/nothing")
        said.append(message(error))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1.41/containers/json/../../images/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /v1.41/containers/%2e%2e/images/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET //v1.41/images/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET http://docker/v1.41/images/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: d\r\n\r\n",
        b"CONNECT docker:2375 HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        b"POST /v1.41/containers/create?name=a&name=b HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_a_trick_on_the_wire_ends_at_the_gate(gate: Gate, request_: bytes) -> None:
    status, _ = raw(gate, request_)
    assert status in (400, 403)


def test_a_second_request_behind_the_first_is_checked_as_well(gate: Gate) -> None:
    url = urlsplit(gate.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
            b"GET /v1.41/images/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        )
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 403" in answers


def test_a_body_with_a_key_twice_never_reaches_docker(gate: Gate, task_image: str) -> None:
    body = b'{"Image": "%s", "HostConfig": {}, "HostConfig": {"Privileged": true}}' % task_image.encode()
    status, answer = raw(
        gate,
        b"POST /v1.41/containers/create?name=airlock-digits-x-0123456789 HTTP/1.1\r\nHost: d\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
    )
    assert status == 403
    assert "twice" in json.loads(answer)["message"]


def test_whoever_stops_following_lets_go_of_docker(
    gate: Gate, client: docker.APIClient, docker_client: docker.APIClient, make: Callable[..., str]
) -> None:
    container_id = make("from task import *; until_stopped()")
    client.start(container_id)
    before = engine_connections(docker_client, gate)
    followed = client.logs(container_id, stream=True, follow=True)
    assert next(followed) == b"waiting\n"
    new = engine_connections(docker_client, gate) - before
    assert new
    followed.close()
    wait_until(lambda: not new & engine_connections(docker_client, gate))


def engine_connections(docker_client: docker.APIClient, gate: Gate) -> set[str]:
    """The connections to the engine that the gate holds: its Unix sockets."""
    pid = docker_client.inspect_container(gate.container_id)["State"]["Pid"]
    inodes = {line.split()[6] for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]}
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for fd in Path(f"/proc/{child}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(os.readlink(fd))
    return found & {f"socket:[{inode}]" for inode in inodes}


def test_an_engine_that_is_down_is_said_so() -> None:
    (port,) = free_ports(1)
    env = {**os.environ, "DOCKER_GATE_SOCKET": "/nowhere/docker.sock", "DOCKER_GATE_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "docker_gate"], cwd=GATE_FOLDER, env=env)
    try:
        wait_until(lambda: connects(port))
        status, answer = raw(Gate(f"http://127.0.0.1:{port}", "", ""), b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert status == 502
        assert "Docker does not answer at /nowhere/docker.sock" in json.loads(answer)["message"]
    finally:
        process.terminate()
        process.wait(20)


def connects(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0

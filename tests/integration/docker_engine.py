"""The real Docker engine for tests: a task image, a network, and the gate in its own container."""

from __future__ import annotations

import io
import os
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.integration.ports import free_ports

SOCKET = Path("/var/run/docker.sock")
BASE = os.environ.get("AIRLOCK_BASE", "airlock-base:build")
GATE_FOLDER = Path(__file__).parents[2] / "images" / "docker-gate"

# A stand-in for the trainer: the command is Python; `leave` writes the result, `fail` as the contract says.
TASK_DOCKERFILE = f"""\
FROM {BASE}
LABEL airlock.image=trainer
RUN install -d -o airlock -g airlock /results /cache
COPY task.py /opt/task/task.py
ENV PYTHONPATH=/opt/task
USER airlock
ENTRYPOINT ["python3", "-c"]
"""
TASK_MODULE = b"""\
import json, os, signal, sys, time

CODES = {"data": 65, "unavailable": 69, "internal": 70, "gpu": 71, "config": 78, "interrupted": 143}

def leave(**result):
    with open(os.environ["RESULT_PATH"], "w") as file:
        json.dump(result, file)

def fail(kind, message, **beside):
    leave(error={"kind": kind, "message": message}, **beside)
    sys.exit(CODES[kind])

def until_stopped():
    signal.signal(signal.SIGTERM, lambda *_: fail("interrupted", "stopped on request"))
    print("waiting", flush=True)
    while True:
        signal.pause()

def until(path):
    while not os.path.exists(path):
        time.sleep(0.05)
"""


@dataclass(frozen=True)
class Gate:
    """A running gate: its URL, the one network that it lets containers join, and its own container."""

    url: str
    network: str
    container_id: str


def build(client: docker.APIClient, tag: str, files: dict[str, bytes]) -> str:
    """Build an image from `files` and return its id; unchanged ones come from the cache."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    context.seek(0)
    answers: list[dict[str, Any]] = list(
        client.build(fileobj=context, custom_context=True, tag=tag, rm=True, decode=True)
    )
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert not errors, errors
    return str(client.inspect_image(tag)["Id"])


def build_task_image(client: docker.APIClient) -> str:
    """The stand-in for the trainer, in place of which it is labelled."""
    files = {"Dockerfile": TASK_DOCKERFILE.encode(), "task.py": TASK_MODULE}
    return build(client, "airlock-test-task:latest", files)


@contextmanager
def network(client: docker.APIClient) -> Iterator[str]:
    """A network of its own, as `airlock` is."""
    name = f"airlock-test-{uuid.uuid4().hex[:8]}"
    created = client.create_network(name, driver="bridge")
    try:
        yield name
    finally:
        client.remove_network(created["Id"])


@contextmanager
def docker_gate(client: docker.APIClient, network: str) -> Iterator[Gate]:
    """The gate as it is deployed: its image, its user, the socket's group, a port on loopback."""
    files = {
        str(path.relative_to(GATE_FOLDER)): path.read_bytes()
        for path in GATE_FOLDER.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    files["Dockerfile"] = files["Dockerfile"].replace(b"airlock-base:build", BASE.encode())
    image = build(client, "airlock-docker-gate:test", files)
    (port,) = free_ports(1)
    created = client.create_container(
        image,
        environment={"DOCKER_GATE_NETWORK": network},
        ports=[2375],
        host_config=client.create_host_config(
            binds=[f"{SOCKET}:/var/run/docker.sock"],
            # A port of our choice, since one of Docker's choice changes with a restart.
            port_bindings={2375: ("127.0.0.1", port)},
            group_add=[str(SOCKET.stat().st_gid)],
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
        ),
    )
    try:
        client.start(created["Id"])
        _wait_until_healthy(client, created["Id"])
        yield Gate(f"http://127.0.0.1:{port}", network, created["Id"])
    finally:
        client.remove_container(created["Id"], force=True, v=True)


@contextmanager
def removed_volume(client: docker.APIClient, name: str) -> Iterator[None]:
    """Removes the named volume at the end if it was not there before."""
    try:
        client.inspect_volume(name)
    except docker.errors.NotFound:
        yield
        with suppress(docker.errors.APIError):  # somebody else's by now
            client.remove_volume(name)
    else:
        yield


def _wait_until_healthy(client: docker.APIClient, container_id: str) -> None:
    if client.inspect_container(container_id)["State"]["Health"]["Status"] == "healthy":
        return
    filters = {"container": [container_id], "event": ["health_status", "die"]}
    events = client.events(decode=True, filters=filters, since=0)
    try:
        for event in events:
            assert event["Action"] == "health_status: healthy", client.logs(container_id)
            return
    finally:
        events.close()


def printed(
    client: docker.APIClient, image: str, script: list[str], *, binds: dict[str, str], path: str, **limits: Any
) -> str:
    """What a Python script prints that runs to its end in a container, without a network.

    `binds` are the container's paths by the host's, with `:ro` where they are not to be written; `path` is PYTHONPATH;
    `limits` go into Docker's host configuration.
    """
    created = client.create_container(
        image,
        script,
        entrypoint=["python"],
        environment={"PYTHONPATH": path},
        user="0",
        host_config=client.create_host_config(
            binds=[f"{source}:{target}" for source, target in binds.items()], network_mode="none", **limits
        ),
    )
    try:
        client.start(created["Id"])
        code, log = client.wait(created["Id"])["StatusCode"], client.logs(created["Id"]).decode()
        assert code == 0, f"{script} ended with {code}: {log[-3000:]}"
        return str(log)
    finally:
        client.remove_container(created["Id"], force=True, v=True)


def address(client: docker.APIClient, container: str) -> str:
    """A container's address on its only network."""
    (network,) = client.inspect_container(container)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Ask until it is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)

"""The real front door for tests: HAProxy in its container, stand-ins for the API, and clients that never retry."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import docker
import docker.errors

from include.api_checks import Answer, RealHttp
from include.front_door import FrontDoor
from include.haproxy_config import Routed
from tests.integration.docker_engine import BASE, address, build, wait_until
from tests.integration.ports import free_ports

HAPROXY_FOLDER = Path(__file__).parents[2] / "images" / "haproxy"
HAPROXY_DIRECTORY = Path("/run/airlock-haproxy")
UID = 10001

STUB_DOCKERFILE = f"""\
FROM {BASE}
LABEL airlock.image=api
COPY stub_api.py /opt/stub_api.py
USER airlock
ENTRYPOINT ["python3", "/opt/stub_api.py"]
"""


def build_stub_api(client: docker.APIClient) -> str:
    """The stand-in for the API image; returns its tag."""
    tag = "airlock-test-stub-api:latest"
    source = Path(__file__).with_name("stub_api.py").read_bytes()
    build(client, tag, {"Dockerfile": STUB_DOCKERFILE.encode(), "stub_api.py": source})
    return tag


def build_haproxy(client: docker.APIClient) -> str:
    """The front door's image; returns its tag."""
    tag = "airlock-test-haproxy:latest"
    files = {name: (HAPROXY_FOLDER / name).read_bytes() for name in ("Dockerfile", "start")}
    files["Dockerfile"] = files["Dockerfile"].replace(b"airlock-base:build", BASE.encode())
    build(client, tag, files)
    return tag


def routed(replicas: Mapping[str, int], per_minute: int = 6000) -> dict[str, Routed]:
    """What the front door is told of projects with so many API containers."""
    return {name: Routed(count, per_minute) for name, count in replicas.items()}


@dataclass
class RunningDoor:
    """HAProxy in a container, its directory shared with the test."""

    client: docker.APIClient
    container_id: str
    door: FrontDoor
    directory: Path
    url: str

    def address(self) -> str:
        """Its own, on the network of its containers."""
        return address(self.client, self.container_id)

    def checked(self) -> str:
        """What `haproxy -c` says to the present configuration; fails where it refuses it."""
        command = ["haproxy", "-c", "-f", str(HAPROXY_DIRECTORY / "haproxy.cfg")]
        execution = self.client.exec_create(self.container_id, command)["Id"]
        said = str(self.client.exec_start(execution).decode())
        assert self.client.exec_inspect(execution)["ExitCode"] == 0, said
        return said

    def configure(self, replicas: Mapping[str, int], *, guarded: bool = False, per_minute: int = 6000) -> bool:
        """As `make up` does, for projects with so many API containers a release."""
        return self.door.configure(routed(replicas, per_minute), guarded=guarded)

    def log(self) -> str:
        """What HAProxy said last."""
        return str(self.client.logs(self.container_id, tail=200).decode())

    def restart(self) -> None:
        """Kill HAProxy and start it again, as a reboot does."""
        self.client.kill(self.container_id)
        self.client.start(self.container_id)
        wait_until(self.answers)

    def answers(self) -> bool:
        """Whether its port answers HTTP."""
        return RealHttp().get(f"{self.url}/").status == 404


@contextmanager
def front_door(
    client: docker.APIClient, network: str, directory: Path, replicas: Mapping[str, int]
) -> Iterator[RunningDoor]:
    """HAProxy as it is deployed, for these projects."""
    directory.mkdir()
    uid = os.getuid() or UID
    if os.getuid() == 0:
        os.chown(directory, UID, UID)
    door = FrontDoor(directory, seen_as=HAPROXY_DIRECTORY)
    door.configure(routed(replicas))
    (port,) = free_ports(1)
    created = client.create_container(
        build_haproxy(client),
        user=f"{uid}:{uid}",
        ports=[8000],
        host_config=client.create_host_config(
            binds=[f"{directory}:{HAPROXY_DIRECTORY}"],
            port_bindings={8000: ("127.0.0.1", port)},
            network_mode=network,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        ),
    )
    running = RunningDoor(client, created["Id"], door, directory, f"http://127.0.0.1:{port}")
    try:
        client.start(created["Id"])
        wait_until(running.answers)
        yield running
    finally:
        client.remove_container(created["Id"], force=True, v=True)


class ContainerHttp(RealHttp):
    """HTTP to containers by their names, which this machine's resolver does not know."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client

    def _ask(self, method: str, url: str, body: bytes | None) -> Answer:
        host = str(urlsplit(url).hostname)
        try:
            found = address(self._client, host)
        except docker.errors.NotFound:
            return super()._ask(method, url, body)
        return super()._ask(method, url.replace(host, found), body)


class Connection:
    """One connection of a client that does as little as one can beside asking, so that the server is what is busy."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=20)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> tuple[int, bytes, bool]:
        """Status and body of the answer, and whether the connection ends with it. Raises ValueError for none."""
        self._socket.sendall(request)
        first = self._file.readline().split()
        if len(first) < 2:
            raise ValueError("the connection was closed without an answer")
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        body = self._file.read(length)
        if len(body) < length:
            raise ValueError("the answer was cut off")
        return int(first[1]), body, headers.get("connection") == "close"

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._socket.close()


@dataclass
class Asked:
    """What the clients saw: answers by run, and every request that failed."""

    runs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    begun: dict[str, float] = field(default_factory=dict)
    """When the last of the requests that a run has answered was begun, by the monotonic clock."""

    def total(self) -> int:
        """Requests so far."""
        return self.runs.total() + len(self.failures)


@contextmanager
def clients(url: str, project: str, count: int = 4, body_bytes: int = 3200) -> Iterator[Asked]:
    """Clients that predict without pause and never retry: half on one kept connection, half on a new one each time."""
    asked, lock, stop = Asked(), threading.Lock(), threading.Event()
    address = ("127.0.0.1", int(str(urlsplit(url).port)))
    head = f"POST /{project}/predict HTTP/1.1\r\nHost: front\r\nContent-Length: {body_bytes}\r\n\r\n"
    request = head.encode() + bytes(body_bytes)

    def work(keep_alive: bool) -> None:
        connection: Connection | None = None
        while not stop.is_set():
            failure = run = ""
            closing = not keep_alive
            began = time.monotonic()
            try:
                connection = connection or Connection(address)
                status, body, closes = connection.ask(request)
                closing |= closes
                if status == 200:
                    run = json.loads(body)["run_id"]
                else:
                    failure = f"{status} {body.decode()}"
            except (OSError, ValueError) as error:
                failure = repr(error)
            if connection is not None and (closing or failure):
                connection.close()
                connection = None
            with lock:
                if failure:
                    asked.failures.append(failure)
                else:
                    asked.runs[run] += 1
                    asked.begun[run] = max(began, asked.begun.get(run, 0.0))
            stop.wait(0.005)

    threads = [threading.Thread(target=work, args=(index % 2 == 0,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


def unique_project() -> str:
    """A project of this test alone: containers have its name."""
    return f"t{uuid.uuid4().hex[:8]}"

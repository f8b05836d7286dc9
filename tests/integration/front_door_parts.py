"""The real front door for tests: HAProxy in its container, stand-ins for the API, and clients that never retry."""

from __future__ import annotations

import http.client
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import docker
import docker.errors

from include.api_checks import Answer, RealHttp
from include.front_door import FrontDoor
from tests.integration.docker_engine import BASE, build, wait_until
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


@dataclass
class RunningDoor:
    """HAProxy in a container, its directory shared with the test."""

    client: docker.APIClient
    container_id: str
    door: FrontDoor
    directory: Path
    url: str

    def checked(self) -> str:
        """What `haproxy -c` says to the present configuration; fails where it refuses it."""
        command = ["haproxy", "-c", "-f", str(HAPROXY_DIRECTORY / "haproxy.cfg")]
        execution = self.client.exec_create(self.container_id, command)["Id"]
        said = str(self.client.exec_start(execution).decode())
        assert self.client.exec_inspect(execution)["ExitCode"] == 0, said
        return said

    def restart(self) -> None:
        """Kill HAProxy and start it again, as a reboot does."""
        self.client.kill(self.container_id)
        self.client.start(self.container_id)
        wait_until(self.answers)

    def answers(self) -> bool:
        """Whether its port answers HTTP."""
        return RealHttp().get(f"{self.url}/").status == 404


@contextmanager
def front_door(client: docker.APIClient, network: str, directory: Path, names: frozenset[str]) -> Iterator[RunningDoor]:
    """HAProxy as it is deployed, for these projects."""
    directory.mkdir()
    uid = os.getuid() or UID
    if os.getuid() == 0:
        os.chown(directory, UID, UID)
    door = FrontDoor(directory, seen_as=HAPROXY_DIRECTORY)
    door.configure(names)
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

    def __init__(self, client: docker.APIClient, network: str) -> None:
        self._client = client
        self._network = network

    def _ask(self, method: str, url: str, body: bytes | None) -> Answer:
        host = str(urlsplit(url).hostname)
        try:
            networks = self._client.inspect_container(host)["NetworkSettings"]["Networks"]
        except docker.errors.NotFound:
            return super()._ask(method, url, body)
        return super()._ask(method, url.replace(host, networks[self._network]["IPAddress"]), body)


@dataclass
class Asked:
    """What the clients saw: answers by run, and every request that failed."""

    runs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@contextmanager
def clients(url: str, project: str, count: int = 4) -> Iterator[Asked]:
    """Clients that predict without pause and never retry: half on one kept connection, half on a new one each time."""
    asked, lock, stop = Asked(), threading.Lock(), threading.Event()
    port = int(str(urlsplit(url).port))

    def work(keep_alive: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not stop.is_set():
            try:
                connection.request("POST", f"/{project}/predict", b"picture " * 400)
                answer = connection.getresponse()
                body = answer.read().decode()
                failure = "" if answer.status == 200 else f"{answer.status} {body}"
            except (OSError, http.client.HTTPException) as error:
                body, failure = "", repr(error)
            closing = not keep_alive or bool(failure) or answer.will_close
            if closing:
                connection.close()
            with lock:
                if failure:
                    asked.failures.append(failure)
                else:
                    asked.runs[body.partition('"run_id": "')[2][:32]] += 1
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

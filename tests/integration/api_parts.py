"""The API image on the real engine, and what it needs around it: relays that can be cut, runs, locked objects."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from mlflow.tracking import MlflowClient

from tests.integration.docker_engine import BASE, address

FOLDER = Path(__file__).parents[2] / "images" / "api"
START_SECONDS = 60


def build_api_image(client: docker.APIClient) -> str:
    """Builds the image as it is deployed; returns its id. What is unchanged comes from the cache."""
    answers = list(
        client.build(path=str(FOLDER), tag="airlock-api:test", buildargs={"AIRLOCK_BASE": BASE}, rm=True, decode=True)
    )
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert not errors, errors
    return str(client.inspect_image("airlock-api:test")["Id"])


class Relay:
    """Carries connections from containers to a server on the host's loopback, until it is cut."""

    def __init__(self, url: str, address: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server((address, 0))
        self._open: set[socket.socket] = set()
        self._cut = False
        self._held = False
        self._asked = threading.Event()
        self.url = f"http://{address}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends what goes through, and refuses what comes."""
        self._cut = True
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """From now on accepts, and never answers."""
        self._held = True

    def wait_until_asked(self) -> None:
        """Returns once somebody waits for an answer that is held."""
        assert self._asked.wait(START_SECONDS)

    def close(self) -> None:
        """The end."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._cut:
                    near.close()
                    continue
                if self._held:
                    self._open.add(near)
                    self._asked.set()
                    continue
                far = socket.create_connection(self._target)
                self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._open.discard(each)


@dataclass
class Lock:
    """Both halves of the double lock: objects in the DVC bucket, runs in MLflow."""

    s3: Any
    bucket: str
    mlflow: MlflowClient
    experiment: str = field(init=False)

    def __post_init__(self) -> None:
        self.experiment = self.mlflow.create_experiment(f"api-{uuid.uuid4().hex[:8]}")

    def push(self, content: bytes, remote: str = "models") -> str:
        """Puts the bytes where `dvc push` would; returns their md5."""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self.s3.put_object(Bucket=self.bucket, Key=self.key(md5, remote), Body=content)
        return md5

    @staticmethod
    def key(md5: str, remote: str = "models") -> str:
        """Where an object lies."""
        return f"{remote}/files/md5/{md5[:2]}/{md5[2:]}"

    def run(self, onnx: bytes, split: Mapping[str, Any] | None = None, **tags: str | None) -> str:
        """A finished run with its weights pushed; a tag given as None is left out. Returns its id."""
        every: dict[str, str | None] = {
            "project": "paint",
            "dvc_hash": "b" * 32,
            "dvc_hash_onnx": self.push(onnx),
            "dvc_hash_split": self.push(json.dumps(split).encode()) if split else None,
            "snapshot_id": "20261123T171409123Z-c71581aa",
            "snapshot_md5": "d" * 32 + ".dir",
            "git_commit": "abc123",
            "image_id": "sha256:trainer",
            **tags,
        }
        run = self.mlflow.create_run(self.experiment, tags={name: value for name, value in every.items() if value})
        self.mlflow.log_metric(run.info.run_id, "accuracy_top1", 0.97)
        self.mlflow.set_terminated(run.info.run_id)
        return str(run.info.run_id)


@dataclass(frozen=True)
class ApiContainer:
    """One container of the API image."""

    client: docker.APIClient
    id: str

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://{address(self.client, self.id)}:8000"

    def start(self) -> None:
        """Starts it, for the first time or again."""
        self.client.start(self.id)

    def wait_until_healthy(self) -> requests.Response:
        """Its first 200 from `/health`; fails with its log when it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.client.inspect_container(self.id)["State"]["Running"]:
            with suppress(requests.RequestException):
                answer = requests.get(f"{self.url}/health", timeout=2)
                if answer.status_code == 200:
                    return answer
            time.sleep(0.05)  # there is no event for it
        raise AssertionError(f"never healthy: {self.log()}")

    def wait_for(self, event: str) -> None:
        """Returns once it has logged that event."""
        for line in self.client.logs(self.id, stream=True, follow=True):
            if json.loads(line)["event"] == event:
                return
        raise AssertionError(f"ended without {event}: {self.log()}")

    def run_inside(self, script: str) -> None:
        """Runs a shell script in it."""
        execution = self.client.exec_create(self.id, ["sh", "-c", script])
        output = self.client.exec_start(execution)
        assert self.client.exec_inspect(execution)["ExitCode"] == 0, output

    def wait(self) -> int:
        """Its exit code."""
        return int(self.client.wait(self.id, timeout=START_SECONDS)["StatusCode"])

    def stop(self) -> int:
        """SIGTERM, as `docker stop` sends it; its exit code."""
        self.client.stop(self.id, timeout=30)
        return self.wait()

    def log(self) -> str:
        """All it has logged."""
        return str(self.client.logs(self.id).decode())

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if line["event"] == name]

    def result(self) -> Any:
        """The result file of a task."""
        stream, _ = self.client.get_archive(self.id, "/results/result.json")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            member = archive.extractfile("result.json")
            assert member is not None
            return json.load(member)


@contextmanager
def api_container(
    client: docker.APIClient,
    image: str,
    command: str,
    environment: Mapping[str, str],
    volumes: Mapping[str, str],
    network: str,
) -> Iterator[ApiContainer]:
    """A container as it is deployed: read-only root, no capabilities. `volumes`: name → path. Removed at the end."""
    created = client.create_container(
        image,
        [command],
        environment=dict(environment),
        volumes=["/results"],
        host_config=client.create_host_config(
            binds=[f"{name}:{path}" for name, path in volumes.items()],
            network_mode=network,
            read_only=True,
            tmpfs={"/tmp": "size=16m"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=512 * 1024 * 1024,
            memswap_limit=512 * 1024 * 1024,
            pids_limit=128,
        ),
    )
    try:
        yield ApiContainer(client, created["Id"])
    finally:
        client.remove_container(created["Id"], force=True, v=True)


@contextmanager
def volume(client: docker.APIClient) -> Iterator[str]:
    """An empty volume."""
    name = f"airlock-test-{uuid.uuid4().hex[:8]}"
    client.create_volume(name)
    try:
        yield name
    finally:
        client.remove_volume(name)


def host_address(client: docker.APIClient, network: str) -> str:
    """Where containers on the network find the host."""
    return str(client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"])

"""Runs the real trainer image as Airflow's operator does: read-only root, no rights, limited memory."""

from __future__ import annotations

import io
import json
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from tests.integration.dataset_lab import PROJECT, Lab

IMAGE = os.environ.get("AIRLOCK_TRAINER_IMAGE", "airlock-trainer-default:dev")
END_SECONDS = 300
STOCK_SCAN = """
from trainer import scan
scan.HASHED = {}
"""
"""A patch: Ultralytics scans the pictures itself, as where it knows no outcome."""


def environment_of(lab: Lab, snapshot_id: str, mlflow_url: str) -> dict[str, str]:
    """What Airflow's operator tells the trainer, for a short training on a snapshot."""
    return {
        "PROJECT": PROJECT,
        "S3_ENDPOINT_URL": lab.server.endpoint_url,
        "AWS_ACCESS_KEY_ID": lab.server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": lab.server.secret_access_key,
        "AWS_REGION": lab.server.region,
        "TRAIN_BUCKET": lab.train,
        "AIRLOCK_BUCKET": lab.airlock,
        "DVC_BUCKET": lab.dvc,
        "MLFLOW_TRACKING_URI": mlflow_url,
        "MLFLOW_OUTAGE_MINUTES": "5",
        "SNAPSHOT_ID": snapshot_id,
        "DEVICE": "cpu",
        "MODEL": "yolo11n-cls.yaml",
        "IMAGE_SIZE": "32",
        "EPOCHS": "2",
        "BATCH": "32",
        "LEARNING_RATE": "0.002",
        "SEED": "7",
        "TRAIN_ARGS": json.dumps({"auto_augment": None, "erasing": 0, "scale": 0.2}),
        "VAL_SHARE": "0.2",
        "MIN_IMAGES_PER_CLASS": "5",
        "MAX_BAD_SHARE": "0.05",
        "MEMORY_BYTES": "1572864000",
        "AIRFLOW_DAG_ID": "pets__retrain",
        "AIRFLOW_RUN_ID": "manual__1",
        "AIRFLOW_TASK_ID": "train",
        "AIRFLOW_TRY_NUMBER": "1",
        "IMAGE_ID": "sha256:abc",
        "CODE_COMMIT": "0123abc-dirty",
        "REASON": "a test",
    }


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    result: Any
    log: str


class Trainer:
    """The trainer image with an environment and a cache volume of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._engine = docker.from_env()
        self._environment = environment
        self._cache = f"airlock-test-cache-{uuid.uuid4().hex[:8]}"
        self._containers: list[Container] = []

    def start(self, command: str, patch: str = "", **changes: str) -> Container:
        """Start a command; `changes` go into its environment, `patch` is Python that runs before it."""
        program = f"{patch}\nimport sys\nfrom trainer.main import main\nsys.exit(main(sys.argv[1:]))"
        container = self._engine.containers.run(
            IMAGE,
            ["-c", program, command] if patch else command,
            entrypoint="python" if patch else None,
            detach=True,
            network_mode="host",  # the tests' servers listen on the loopback
            init=True,
            read_only=True,
            tmpfs={"/tmp": "size=256m"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="1500m",
            volumes={self._cache: {"bind": "/cache", "mode": "rw"}},
            environment={**self._environment, **changes},
        )
        self._containers.append(container)
        return container

    def run(self, command: str, patch: str = "", **changes: str) -> Ended:
        """Run a command to its end."""
        return self.ended(self.start(command, patch, **changes))

    def ended(self, container: Container) -> Ended:
        """Wait for the end of a container."""
        code = container.wait(timeout=END_SECONDS)["StatusCode"]
        return Ended(code, self._result(container), container.logs().decode())

    def wait_for_log(self, container: Container, met: Callable[[str], bool]) -> None:
        """Follow a container's log until a line meets a condition."""
        for line in container.logs(stream=True, follow=True):
            if met(line.decode()):
                return
        raise AssertionError(f"the container ended first: {container.logs().decode()[-3000:]}")

    def remove(self) -> None:
        """Remove what was started."""
        for container in self._containers:
            container.remove(force=True, v=True)
        self._engine.volumes.get(self._cache).remove()

    def cached_runs(self) -> str:
        """What lies in the cache's folder of runs."""
        command = ["-c", "ls /cache/runs"]
        volumes = {self._cache: {"bind": "/cache", "mode": "ro"}}
        output: bytes = self._engine.containers.run(IMAGE, command, entrypoint="sh", remove=True, volumes=volumes)
        return output.decode().strip()

    def _result(self, container: Container) -> Any:
        try:
            stream, _ = container.get_archive("/results/result.json")
        except docker.errors.NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            member = archive.extractfile("result.json")
            assert member
            return json.load(member)


@contextmanager
def trainer(environment: dict[str, str]) -> Iterator[Trainer]:
    """A trainer for the time of a test."""
    one = Trainer(environment)
    try:
        yield one
    finally:
        one.remove()

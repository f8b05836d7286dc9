"""Real parts for the tests of storage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.docker_engine import Gate, build_task_image, docker_gate, network
from tests.integration.s3_servers import S3Server, juicefs, seaweedfs


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, the server that Airlock embeds."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def plain_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A MinIO-derived server that ignores conditional writes."""
    with juicefs(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.APIClient]:
    """The real engine, without a gate before it."""
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def task_image(docker_client: docker.APIClient) -> str:
    """Id of a small image that stands in for the trainer; its command is Python, with `task` to import."""
    return build_task_image(docker_client)


@pytest.fixture(scope="session")
def gate(docker_client: docker.APIClient) -> Iterator[Gate]:
    """The Docker gate in its own container, and the network that it allows."""
    with network(docker_client) as name, docker_gate(docker_client, name) as gate:
        yield gate


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AIRFLOW_HOME with an empty database, to copy."""
    home = tmp_path_factory.mktemp("airflow")
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    return home

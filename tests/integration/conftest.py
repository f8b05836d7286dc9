"""Real parts for the tests of storage."""

from __future__ import annotations

from collections.abc import Iterator

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

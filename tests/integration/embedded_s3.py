"""The embedded S3 server as it is deployed: its image, with identities such as `make up` writes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests

import images
from include import s3, s3_identities
from include.settings import S3Identity, Settings
from tests.integration.deployment_settings import deployment_settings
from tests.integration.docker_engine import BASE, address, wait_until
from tests.integration.ports import free_ports

START_SECONDS = 60
# Less than one full volume: what fits here fits on any disk.
DISK_BYTES = 1 << 29


@dataclass(frozen=True)
class EmbeddedS3:
    """A running server, its roles' keys, and the file that says what they may."""

    engine: docker.APIClient
    container_id: str
    settings: Settings
    keys: Mapping[str, S3Identity]
    identities: Path

    def client(self, role: str) -> Any:
        """A boto3 client with a role's keys."""
        return s3.client(self.settings, self.keys[role])

    def write_identities(self, rights: Mapping[str, list[str]]) -> None:
        """What the server reads when it starts, and at SIGHUP."""
        self.identities.write_text(json.dumps(s3_identities.document(self.keys, rights)))
        self.identities.chmod(0o644)  # for the container's user

    def address(self) -> str:
        """Where the other containers on its network reach it."""
        return address(self.engine, self.container_id)

    def said(self, *command: str) -> str:
        """What a command says that runs in its container."""
        execution = self.engine.exec_create(self.container_id, list(command))["Id"]
        return str(self.engine.exec_start(execution).decode())


@contextmanager
def embedded_s3(
    engine: docker.APIClient, directory: Path, projects: list[str], more: Mapping[str, list[str]] | None = None
) -> Iterator[EmbeddedS3]:
    """SeaweedFS as Compose starts it, on a small disk. `projects` are their buckets; `more` are other roles' rights."""
    image = images.build(next(one for one in images.service_images({}, BASE) if one.name == "s3"))
    (port,) = free_ports(1)
    roles = ("admin", "airflow", "trainer", "api", "mlflow", *(more or {}))
    keys = {role: S3Identity(f"{role}-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex) for role in roles}
    settings = deployment_settings(f"http://127.0.0.1:{port}", keys)
    config = directory / "config"
    config.mkdir()
    config.chmod(0o755)
    created = engine.create_container(
        image,
        ports=[9000],
        host_config=engine.create_host_config(
            binds=[f"{config}:/config:ro"],
            port_bindings={9000: ("127.0.0.1", port)},
            tmpfs={"/tmp": "", "/data": f"size={DISK_BYTES},uid=10001,gid=10001"},
            init=True,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="2g",
            pids_limit=500,
        ),
    )
    server = EmbeddedS3(engine, created["Id"], settings, keys, config / "identities.json")
    rights = s3_identities.actions(settings, [settings.bucket(name) for name in projects])
    server.write_identities({**rights, **(more or {})})
    try:
        engine.start(created["Id"])
        wait_until(lambda: healthy(settings.s3_endpoint_url), START_SECONDS)
        yield server
    finally:
        engine.remove_container(created["Id"], force=True, v=True)


def healthy(url: str) -> bool:
    """The health check of the Compose file."""
    try:
        return requests.get(f"{url}/healthz", timeout=5).status_code == 200
    except requests.RequestException:
        return False

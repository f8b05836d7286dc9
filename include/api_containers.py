"""The containers that serve: a release's replicas on its colour, the release in their labels."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import docker
import docker.errors
from docker.types import Mount

from include.containers import host_config, patiently, stop_and_remove
from include.haproxy_config import API_PORT, COLOURS, server_name
from include.project import Project
from include.releases import Colour, Record
from include.settings import Settings

WEIGHTS_VOLUME, WEIGHTS_PATH = "airlock-weights", "/weights"
# Threads count, and libraries make some for every core.
PIDS_LIMIT = 512
SHM_BYTES = 64 * 2**20
# More than the API takes to answer what it has begun (docs/contracts.md).
STOP_SECONDS = 30


class ContainerError(Exception):
    """Docker refused to make or start the container."""


class ImageGone(ContainerError):
    """The image of a release is not on this machine: it was removed, or the records came from another machine."""

    def __init__(self, record: Record) -> None:
        self.record = record
        super().__init__(
            f"the API image {record.api_image_id} of release {record.release_id} is not on this machine; "
            "`make up` releases the same run again with the image of now"
        )


@dataclass(frozen=True)
class ApiContainer:
    """An API container as Docker knows it.

    `address` is its IP on the network, None while it does not run; `restarts` counts Docker's starts after a crash.
    """

    project: str
    colour: Colour
    number: int
    release_id: str
    running: bool
    address: str | None
    restarts: int

    @property
    def name(self) -> str:
        """The container's name."""
        return server_name(self.project, self.colour, self.number)


class ApiContainers:
    """API containers by Docker. Raises ContainerError where Docker refuses, DockerUnavailable where it is away."""

    def __init__(self, client: docker.APIClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def of(self, project: str) -> list[ApiContainer]:
        """A project's API containers, running or not."""
        return [found for found in self.all() if found.project == project]

    def all(self) -> list[ApiContainer]:
        """Every project's API containers, running or not."""
        labels = ["airlock.managed=true", "airlock.role=api"]
        found = []
        for summary in patiently(lambda: self._client.containers(all=True, filters={"label": labels})):
            with contextlib.suppress(docker.errors.NotFound):  # removed meanwhile
                container = self._read(patiently(partial(self._client.inspect_container, summary["Id"])))
                if container is not None:
                    found.append(container)
        return found

    def image_id(self) -> str:
        """The immutable id of the deployment's API image. Raises ContainerError where it is not there."""
        tag = self._settings.api_image()
        try:
            return str(patiently(lambda: self._client.inspect_image(tag))["Id"])
        except docker.errors.NotFound:
            raise ContainerError(f"the API image {tag} is not on the Docker host; run `make up`") from None

    def has_image(self, image_id: str) -> bool:
        """Whether an image is on the Docker host."""
        try:
            patiently(lambda: self._client.inspect_image(image_id))
        except docker.errors.NotFound:
            return False
        return True

    def create(self, project: Project, record: Record, colour: Colour, number: int) -> None:
        """Make a release's container, not yet started. Raises ContainerError where Docker refuses; ImageGone is one."""
        name = server_name(project.name, colour, number)
        limits = host_config(
            self._client,
            network=self._settings.network,
            memory_bytes=project.api_memory_bytes,
            pids_limit=PIDS_LIMIT,
            shm_bytes=SHM_BYTES,
            mounts=[Mount(WEIGHTS_PATH, WEIGHTS_VOLUME)],
            gpu=self._settings.api_device == "cuda",
            restart=True,
        )
        try:
            patiently(
                lambda: self._client.create_container(
                    image=record.api_image_id,
                    command=["serve"],
                    name=name,
                    environment=environment(self._settings, record),
                    labels=labels(record, colour),
                    stop_timeout=STOP_SECONDS,
                    host_config=limits,
                )
            )
        except docker.errors.APIError as error:
            if not error.is_client_error() or error.status_code == HTTPStatus.CONFLICT:  # a name that is not free yet
                raise
            if error.status_code == HTTPStatus.NOT_FOUND:
                raise ImageGone(record) from error
            raise ContainerError(f"Docker refused the container {name}: {error.explanation}") from error

    def start(self, name: str) -> None:
        """Start a container; nothing happens where it runs. Raises ContainerError where Docker cannot."""
        try:
            patiently(lambda: self._client.start(name))
        except docker.errors.APIError as error:
            raise ContainerError(f"Docker did not start the container {name}: {error.explanation}") from error

    def remove(self, name: str) -> None:
        """Stop a container, so that it answers what it has begun, and remove it; one that is gone is no error."""
        stop_and_remove(self._client, name, STOP_SECONDS)

    def last_log_lines(self, name: str, lines: int) -> str:
        """What a container said last; empty where there is none."""
        try:
            return str(patiently(lambda: self._client.logs(name, tail=lines)).decode(errors="replace")).strip()
        except docker.errors.NotFound:
            return ""

    def _read(self, found: dict[str, Any]) -> ApiContainer | None:
        have = found["Config"]["Labels"]
        project, colour = have.get("airlock.project", ""), have.get("airlock.colour")
        number = found["Name"].rpartition("-")[2]
        if colour not in COLOURS or not number.isdigit():
            return None
        if found["HostConfig"]["NetworkMode"] != self._settings.network:  # another deployment's, on the same engine
            return None
        if found["Name"].removeprefix("/") != server_name(project, colour, int(number)):
            return None
        network = found["NetworkSettings"]["Networks"].get(self._settings.network) or {}
        return ApiContainer(
            project=project,
            colour=colour,
            number=int(number),
            release_id=have.get("airlock.release_id", ""),
            running=bool(found["State"]["Running"]),
            address=network.get("IPAddress") or None,
            restarts=int(found["RestartCount"]),
        )


def environment(settings: Settings, record: Record) -> dict[str, str]:
    """The environment of `serve`; see docs/contracts.md."""
    keys = settings.identity("api")
    return {
        "PROJECT": record.project,
        "RELEASE_ID": record.release_id,
        "MLFLOW_RUN_ID": record.run_id,
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        "AWS_REGION": settings.s3_region,
        "DVC_BUCKET": settings.dvc_bucket,
        "IMAGE_ID": record.api_image_id,
        "ROOT_PATH": f"/{record.project}",
        "DEVICE": settings.api_device,
        "MLFLOW_PUBLIC_URL": settings.mlflow_public_url,
        **({"RELEASE_IDENTITY": identity(record)} if record.provenance is not None else {}),
        **(telemetry(settings.otlp_endpoint, record) if settings.otlp_endpoint else {}),
    }


def telemetry(endpoint: str, record: Record) -> dict[str, str]:
    """What makes the API export traces and metrics, and by which they are told apart."""
    told = {
        "airlock.project": record.project,
        "airlock.release_id": record.release_id,
        "airlock.mlflow_run_id": record.run_id,
    }
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{name}={value}" for name, value in told.items()),
    }


def identity(record: Record) -> str:
    """What MLflow says of the run, as JSON: for a start without it."""
    assert record.provenance is not None
    of_run = record.model_dump(
        include={"run_id", "project", "dvc_hash", "dvc_hash_onnx", "snapshot_id", "snapshot_md5"}
    )
    return json.dumps({**of_run, **record.provenance.model_dump()})


def labels(record: Record, colour: Colour) -> dict[str, str]:
    """All labels of the contract for an API container."""
    return {
        "airlock.managed": "true",
        "airlock.project": record.project,
        "airlock.role": "api",
        "airlock.release_id": record.release_id,
        "airlock.colour": colour,
        "airlock.mlflow_run_id": record.run_id,
    }


def base_url(project: str, colour: Colour, number: int) -> str:
    """Where a container answers on the network, past the front door."""
    return f"http://{server_name(project, colour, number)}:{API_PORT}"

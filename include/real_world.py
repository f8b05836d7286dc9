"""The deployment's own World, from its settings. Imports much; a DAG file imports it in a task, not at the top."""

from __future__ import annotations

import docker
import docker.errors

from include import s3
from include.api_checks import RealHttp
from include.api_containers import ApiContainers
from include.containers import DockerUnavailable
from include.front_door import FrontDoor
from include.locked_objects import LockedObjects
from include.registry import Registry
from include.releases import Releases
from include.settings import Settings, get_settings
from include.world import RealClock, World

DOCKER_TIMEOUT_SECONDS = 60


def real_world(settings: Settings | None = None) -> World:
    """What this deployment's steps act on. Raises DockerUnavailable where the gate does not answer."""
    settings = settings or get_settings()
    return World(
        releases=releases(settings),
        containers=api_containers(settings),
        door=FrontDoor(settings.haproxy_dir),
        aliases=registry(settings),
        locked=locked_objects(settings),
        http=RealHttp(),
        clock=RealClock(),
        front_url=settings.front_url,
    )


def records(settings: Settings) -> s3.Bucket:
    """The bucket of all records."""
    return s3.Bucket(s3.client(settings, settings.identity("airflow")), settings.records_bucket)


def releases(settings: Settings) -> Releases:
    """The release records."""
    return Releases(records(settings))


def locked_objects(settings: Settings) -> LockedObjects:
    """The DVC remote of the models."""
    return LockedObjects(s3.Bucket(s3.client(settings, settings.identity("airflow")), settings.dvc_bucket))


def registry(settings: Settings) -> Registry:
    """MLflow's registry."""
    return Registry(settings.mlflow_url)


def api_containers(settings: Settings) -> ApiContainers:
    """The API containers, by the Docker gate. Raises DockerUnavailable where it does not answer."""
    try:
        client = docker.APIClient(base_url=settings.docker_url, version="auto", timeout=DOCKER_TIMEOUT_SECONDS)
    except docker.errors.DockerException as error:
        raise DockerUnavailable(f"at {settings.docker_url}", error) from error
    return ApiContainers(client, settings)

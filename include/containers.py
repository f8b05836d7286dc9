"""Runs one container per task instance, found again after whoever followed it died.

Docker keeps the state: the container's name is unique and made from the task instance, its labels say the same in
words. So a second process that runs the same spec goes on with the container that is there, and there is never
more than one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import docker
import docker.errors
import requests
import urllib3
from docker.types import DeviceRequest, LogConfig, Mount

from include.container_logs import LogLines, OnLine
from include.container_results import ContainerFailure, Exit, judge, read_result

log = logging.getLogger(__name__)

CACHE_VOLUME, CACHE_PATH = "airlock-cache", "/cache"
RESULTS_PATH = "/results"
TMP_BYTES = 1 << 30
SHM_BYTES = 64 << 20
PIDS_LIMIT = 2048
# Time between SIGTERM and SIGKILL when a task is killed, cleared or timed out.
STOP_GRACE_SECONDS = 30
LOG_ROTATION = {"max-size": "10m", "max-file": "3"}
# How long Docker may be away before the attempt is given up; the container itself goes on if it can.
OUTAGE_SECONDS = 120.0
RETRY_SECONDS = 1.0
# How long another process may take to remove a container: its grace, and Docker's own work.
REMOVAL_SECONDS = 120.0
POLL_SECONDS = 0.2

POOL_LABEL = "airlock.pool"
GATEWAY_ERRORS = frozenset({502, 503, 504})
OUTAGES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

T = TypeVar("T")


class DockerUnavailable(Exception):
    """Docker could not be reached; a container that runs is left alone, for the next attempt to find."""

    def __init__(self, where: str, error: Exception) -> None:
        next_step = "check `docker compose ps docker-gate` and the engine"
        super().__init__(f"Docker does not answer {where} ({error}); {next_step}")


class ContainerGone(ContainerFailure):
    """Somebody removed the container while it was followed."""


@dataclass(frozen=True)
class TaskInstance:
    """The task instance of Airflow that a container works for; `try_number` does not tell two apart."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1

    def labels(self) -> dict[str, str]:
        """The labels that find its container."""
        return {
            "airlock.dag_id": self.dag_id,
            "airlock.run_id": self.run_id,
            "airlock.task_id": self.task_id,
            "airlock.map_index": str(self.map_index),
        }

    def container_name(self, project: str) -> str:
        """`airlock-<project>-<task>-<hash>`: Docker lets only one container have it."""
        identity = "\0".join((self.dag_id, self.run_id, self.task_id, str(self.map_index)))
        digest = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()[:10]
        return f"airlock-{project}-{re.sub(r'[^a-z0-9_.-]', '-', self.task_id.lower())}-{digest}"


@dataclass(frozen=True)
class Pool:
    """A pool of Airflow's, and how many containers may run in it at a time."""

    name: str
    slots: int


@dataclass(frozen=True)
class TaskContainer:
    """What to run. `image` is an image id; `secrets` are environment variables that no repr shows."""

    instance: TaskInstance
    project: str
    image: str
    command: tuple[str, ...]
    network: str
    memory_bytes: int
    stop_grace_seconds: int = STOP_GRACE_SECONDS
    gpu: bool = False
    cache: bool = True
    pool: Pool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shm_bytes(self) -> int:
        """Size of `/dev/shm`, a part of the memory limit; a training on a GPU hands its batches through it."""
        return self.memory_bytes // 2 if self.gpu else SHM_BYTES

    @property
    def name(self) -> str:
        """The container's name."""
        return self.instance.container_name(self.project)

    def labels(self) -> dict[str, str]:
        """All labels of the contract for a task's container."""
        return {
            "airlock.managed": "true",
            "airlock.project": self.project,
            "airlock.role": "task",
            "airlock.try_number": str(self.instance.try_number),
            **({POOL_LABEL: self.pool.name} if self.pool is not None else {}),
            **self.instance.labels(),
        }


def run(
    client: docker.APIClient,
    spec: TaskContainer,
    on_line: OnLine,
    on_container: Callable[[str], None] = lambda container_id: None,
) -> dict[str, Any]:
    """Run `spec` to its end and return its result; the container is gone afterwards.

    A container of the same task instance is taken over: followed while it runs, its result read if it ended well,
    else removed and started anew. A new one waits for a place in its pool. `on_container` is told the id before the
    start.

    Raises ContainerFailure, the container removed, and DockerUnavailable, the container left as it is. Whatever
    else interrupts the wait leaves it too: the caller decides with `stop_and_remove`.
    """
    found = _find(client, spec)
    if found:
        log.info("going on with the container found name=%s id=%s", spec.name, found[:12])
        on_container(found)
        with contextlib.suppress(ContainerGone):
            ended = _follow(client, found, spec.name, on_line)
            if not ended.from_outside:
                return _conclude(client, spec, found, ended)
        # Stopped on the way out by the process that followed it before: not the end of this attempt.
        log.info("the container found was being stopped; starting anew name=%s", spec.name)
        remove(client, found)
    if spec.pool is None:
        container_id = _start_new(client, spec, on_container)
    else:
        container_id = _start_in_pool(client, spec, spec.pool, on_container)
    return _conclude(client, spec, container_id, _follow(client, container_id, spec.name, on_line))


def _start_in_pool(
    client: docker.APIClient, spec: TaskContainer, pool: Pool, on_container: Callable[[str], None]
) -> str:
    """Start a new one, when not all places of the pool are taken by containers whose tasks have died.

    Of those Airflow counts no slot. They end by themselves, or their next attempt, which waits for this slot, would go
    on with them.
    """
    labels = ["airlock.managed=true", f"{POOL_LABEL}={pool.name}"]
    said = False
    while True:
        with _alone_in(pool):
            running = patiently(lambda: client.containers(filters={"label": labels}))
            if len(running) < pool.slots:
                return _start_new(client, spec, on_container)
        if not said:
            names = ", ".join(sorted(row["Names"][0].lstrip("/") for row in running))
            log.info("waiting for a place in the pool %s, which is taken by %s", pool.name, names)
            said = True
        time.sleep(RETRY_SECONDS)


@contextlib.contextmanager
def _alone_in(pool: Pool) -> Iterator[None]:
    """Of the tasks of one worker only one at a time may look for a place and take it: two would take the same."""
    with (Path(tempfile.gettempdir()) / f"airlock-pool-{quote(pool.name, safe='')}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a killed process lets go
        yield


def _start_new(client: docker.APIClient, spec: TaskContainer, on_container: Callable[[str], None]) -> str:
    container_id = _create(client, spec)
    on_container(container_id)
    _start(client, spec, container_id)
    return container_id


def image_id(client: docker.APIClient, tag: str) -> str:
    """The id of an image. Raises ContainerFailure where it is not there or is none of ours."""
    try:
        return str(patiently(lambda: client.inspect_image(tag))["Id"])
    except docker.errors.NotFound as error:
        raise ContainerFailure(
            "config", f"the image {tag} cannot be used: {error.explanation}; run `make up`"
        ) from None


def remove(client: docker.APIClient, container_id: str) -> None:
    """Remove a container, running or not, and its anonymous volume; one that is gone is no error."""

    def attempt() -> None:
        try:
            client.remove_container(container_id, force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code != HTTPStatus.CONFLICT:
                raise
            _await_removal(client, container_id)

    with contextlib.suppress(docker.errors.NotFound):
        patiently(attempt)


def _await_removal(client: docker.APIClient, container_id: str) -> None:
    """Another is removing it: its name is free again when Docker no longer knows it. Raises NotFound then."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while time.monotonic() < deadline:
        client.inspect_container(container_id)
        time.sleep(POLL_SECONDS)
    log.warning("another has been removing it for %.0f s container=%s", REMOVAL_SECONDS, container_id)


def stop_and_remove(client: docker.APIClient, container_id: str, grace_seconds: int) -> None:
    """Stop a container (its id or name) by SIGTERM, by SIGKILL after `grace_seconds`, and remove it."""
    with contextlib.suppress(docker.errors.NotFound):
        patiently(lambda: client.stop(container_id, timeout=grace_seconds))
    remove(client, container_id)


def host_config(
    client: docker.APIClient,
    *,
    network: str,
    memory_bytes: int,
    pids_limit: int,
    shm_bytes: int,
    mounts: list[Mount],
    gpu: bool = False,
    restart: bool = False,
) -> dict[str, Any]:
    """The limits under which the Docker gate lets a container be made: least rights, and an end to every resource."""
    config: dict[str, Any] = client.create_host_config(
        network_mode=network,
        mem_limit=memory_bytes,
        # No swap: a container over its limit is to end, not to crawl.
        memswap_limit=memory_bytes,
        pids_limit=pids_limit,
        shm_size=shm_bytes,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        read_only=True,
        init=True,
        tmpfs={"/tmp": f"rw,noexec,nosuid,nodev,mode=1777,size={TMP_BYTES}"},  # noqa: S108 - in the container
        mounts=mounts,
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if gpu else None,
        log_config=LogConfig(type=LogConfig.types.JSON, config=dict(LOG_ROTATION)),
        restart_policy={"Name": "unless-stopped"} if restart else None,
    )
    return config


def _find(client: docker.APIClient, spec: TaskContainer) -> str | None:
    """The container to go on with: one that runs or that ended well. What is left in another state is removed."""
    labels = [f"{key}={value}" for key, value in {"airlock.managed": "true", **spec.instance.labels()}.items()]
    going_on = None
    for summary in patiently(lambda: client.containers(all=True, filters={"label": labels})):
        container_id = str(summary["Id"])
        if going_on is None and _is_usable(client, container_id):
            going_on = container_id
        else:
            remove(client, container_id)
    return going_on


def _is_usable(client: docker.APIClient, container_id: str) -> bool:
    try:
        state = patiently(lambda: client.inspect_container(container_id))["State"]
    except docker.errors.NotFound:
        return False
    return bool(state["Running"] or (state["Status"] == "exited" and state["ExitCode"] == 0))


def _create(client: docker.APIClient, spec: TaskContainer) -> str:
    mounts = [Mount(RESULTS_PATH, None)] + ([Mount(CACHE_PATH, CACHE_VOLUME)] if spec.cache else [])
    limits = host_config(
        client,
        network=spec.network,
        memory_bytes=spec.memory_bytes,
        pids_limit=PIDS_LIMIT,
        shm_bytes=spec.shm_bytes,
        mounts=mounts,
        gpu=spec.gpu,
    )

    deadline = time.monotonic() + REMOVAL_SECONDS

    def attempt() -> str:
        while True:
            try:
                return _create_once(client, spec, limits)
            except docker.errors.APIError as error:
                if error.status_code != HTTPStatus.CONFLICT or time.monotonic() > deadline:
                    raise
            # The name is taken: by our own try whose answer was lost, or by one that is being removed, whose name
            # Docker frees a moment after it is gone.
            with contextlib.suppress(docker.errors.NotFound):
                remove(client, client.inspect_container(spec.name)["Id"])
            time.sleep(POLL_SECONDS)

    try:
        return patiently(attempt)
    except docker.errors.APIError as error:
        hopeless = error.is_client_error() and error.status_code != HTTPStatus.CONFLICT
        kind = "config" if hopeless else "internal"
        raise ContainerFailure(kind, f"Docker did not create {spec.name}: {error.explanation}") from None


def _create_once(client: docker.APIClient, spec: TaskContainer, limits: dict[str, Any]) -> str:
    created = client.create_container(
        image=spec.image,
        command=list(spec.command),
        name=spec.name,
        environment={**spec.environment, **spec.secrets},
        labels=spec.labels(),
        stop_timeout=spec.stop_grace_seconds,
        host_config=limits,
    )
    return str(created["Id"])


def _start(client: docker.APIClient, spec: TaskContainer, container_id: str) -> None:
    try:
        patiently(lambda: client.start(container_id))
    except docker.errors.APIError as error:
        # A container that did not start stays there as "Created".
        remove(client, container_id)
        raise _start_failure(spec, str(error.explanation), error.is_client_error()) from None


def _start_failure(spec: TaskContainer, words: str, by_request: bool) -> ContainerFailure:
    if "could not select device driver" in words:
        return ContainerFailure(
            "gpu",
            f"Docker cannot give {spec.name} a GPU: the NVIDIA container toolkit is missing on the Docker host "
            f"({words.strip()}); install nvidia-container-toolkit, run "
            "`nvidia-ctk runtime configure --runtime=docker`, restart Docker, or set `device: cpu` in the project",
        )
    if spec.gpu and "nvidia" in words.lower():
        return ContainerFailure(
            "gpu",
            f"Docker cannot give {spec.name} a GPU: the NVIDIA driver does not work on the Docker host "
            f"({words.strip()}); check that `nvidia-smi` runs there, or set `device: cpu` in the project",
        )
    return ContainerFailure("config" if by_request else "internal", f"Docker did not start {spec.name}: {words}")


def _follow(client: docker.APIClient, container_id: str, name: str, on_line: OnLine) -> Exit:
    """Hand every log line to `on_line` and wait for the end; goes on where it was after Docker was away."""
    lines = LogLines(on_line)
    state = {"Running": True}
    try:
        _read_log(client, container_id, lines)
        while state["Running"]:
            state = patiently(lambda: client.inspect_container(container_id))["State"]
            # Once more, whatever the state: a stream ends without an error when the gate is restarted.
            _read_log(client, container_id, lines)
            if state["Running"]:
                time.sleep(RETRY_SECONDS)
    except docker.errors.APIError as error:
        if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):  # 409: it is being removed
            raise
        remove(client, container_id)
        raise ContainerGone("interrupted", f"{name} was removed while it ran") from None
    finally:
        lines.flush()
    return Exit(int(state["ExitCode"]), bool(state["OOMKilled"]))


def _read_log(client: docker.APIClient, container_id: str, lines: LogLines) -> None:
    while True:
        # Not attach: logs can be asked for again, from a moment on, by any process.
        stream = patiently(
            lambda: client.logs(container_id, stream=True, follow=True, timestamps=True, since=lines.since)
        )
        lines.begin_stream()
        try:
            for frame in stream:
                lines.add(frame)
        except OUTAGES as error:
            log.warning("Docker's log stream broke off, asking again: %s", error)
            time.sleep(RETRY_SECONDS)
        else:
            return


def _conclude(client: docker.APIClient, spec: TaskContainer, container_id: str, ended: Exit) -> dict[str, Any]:
    try:
        result = judge(ended, _result(client, container_id, ended), spec.name, spec.memory_bytes)
    except ContainerFailure:
        remove(client, container_id)
        raise
    # Not where the result could not be read: then it is left, for the next attempt to read.
    remove(client, container_id)
    return result


def _result(client: docker.APIClient, container_id: str, ended: Exit) -> dict[str, Any] | None:
    try:
        return patiently(lambda: read_result(client, container_id))
    except docker.errors.APIError:
        # Of a container that was stopped and is being removed, Docker can no longer read a file.
        if ended.code == 0:
            raise
        return None


def patiently(call: Callable[[], T]) -> T:
    """Call until Docker answers. Raises DockerUnavailable after OUTAGE_SECONDS; Docker's own errors pass through."""
    deadline: float | None = None
    while True:
        try:
            return call()
        except OUTAGES as error:
            if isinstance(error, docker.errors.APIError) and error.status_code not in GATEWAY_ERRORS:
                raise
            now = time.monotonic()
            if deadline is None:
                deadline = now + OUTAGE_SECONDS
                log.warning("Docker does not answer, trying for %.0f s: %s", OUTAGE_SECONDS, error)
            if now >= deadline:
                raise DockerUnavailable(f"since {OUTAGE_SECONDS:.0f} s", error) from error
            time.sleep(RETRY_SECONDS)

"""What docker-compose.yaml promises for every service: limits, logs, restarts, who reaches and mounts what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).resolve().parents[2] / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = {"prepare", "setup"}  # they end
S3_WRITES_BACK_SECONDS = 40  # SeaweedFS took 30

every_service = pytest.mark.parametrize("service", SERVICES)
every_long_running_service = pytest.mark.parametrize("service", sorted(SERVICES.keys() - JOBS))


def mounting(volume: str) -> set[str]:
    return {name for name, service in SERVICES.items() if volume in map(source, service.get("volumes", []))}


def source(mount: str) -> str:
    """What a mount takes: a volume, a folder, or the path that a setting names."""
    return re.split(r":(?![^{]*\})", mount)[0]


def on(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service["networks"]}


def given(setting: str) -> set[str]:
    """The services whose environment holds a value of `.env`."""
    return {
        name
        for name, service in SERVICES.items()
        if any(f"${{{setting}" in str(value) for value in service.get("environment", {}).values())
    }


@every_long_running_service
def test_a_long_running_service_is_started_again_and_tells_its_health(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] == "CMD"
    # An engine without API 1.44 knows no interval of its own for the start: `healthy` makes one.
    assert check["test"][1] == "healthy" or service == "minio", "MinIO's image is its maker's"


def test_the_jobs_that_end_are_not_started_again() -> None:
    assert {name for name, service in SERVICES.items() if service["restart"] == "no"} == JOBS


@every_service
def test_a_service_has_limits_for_memory_and_processes(service: str) -> None:
    assert SERVICES[service]["mem_limit"]
    assert SERVICES[service]["pids_limit"] > 0


@every_service
def test_logs_of_a_service_are_rotated(service: str) -> None:
    logging = SERVICES[service]["logging"]
    assert logging["driver"] == "json-file"
    assert logging["options"]["max-size"]
    assert int(logging["options"]["max-file"]) > 1


@every_service
def test_a_service_has_an_init_that_hands_on_signals_and_reaps(service: str) -> None:
    assert SERVICES[service]["init"] is True


@every_service
def test_a_service_has_no_rights_on_the_host(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert not SERVICES[service].keys() & {"cap_add", "devices", "ipc", "network_mode", "pid", "privileged", "user"}


@every_service
def test_a_service_of_ours_cannot_write_its_image(service: str) -> None:
    assert SERVICES[service].get("read_only", False) is (service != "minio")


@every_service
def test_a_published_port_listens_where_airlock_bind_says_by_default_on_this_machine_alone(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert port.startswith("${AIRLOCK_BIND:-127.0.0.1}:")


def test_the_s3_server_has_time_to_write_its_volumes_back() -> None:
    assert int(SERVICES["s3"]["stop_grace_period"].removesuffix("s")) >= S3_WRITES_BACK_SECONDS


def test_only_the_docker_gate_has_the_engines_socket() -> None:
    assert mounting("${DOCKER_SOCKET:-/var/run/docker.sock}") == {"docker-gate"}
    assert {name for name, service in SERVICES.items() if "group_add" in service} == {"docker-gate"}


@every_service
def test_of_the_host_a_service_sees_only_folders_of_the_checkout_and_only_to_read(service: str) -> None:
    for mount in SERVICES[service].get("volumes", []):
        if source(mount) not in COMPOSE["volumes"] and service != "docker-gate":
            assert mount.startswith("./")
            assert mount.endswith(":ro")


def test_postgres_and_the_docker_gate_are_where_no_task_and_no_client_reaches() -> None:
    assert COMPOSE["networks"]["control"]["internal"] is True
    for service in ("postgres", "docker-gate"):
        assert SERVICES[service]["networks"] == ["control"]
        assert "ports" not in SERVICES[service]
    assert on("control") == {"postgres", "docker-gate", "mlflow", *JOBS} | {
        name for name in SERVICES if name.startswith("airflow-")
    }


def test_only_what_steers_the_front_door_mounts_its_volume() -> None:
    assert mounting("haproxy") == {"haproxy", "airflow-scheduler", *JOBS}


def test_files_with_secrets_are_mounted_by_their_writer_and_their_reader_alone() -> None:
    assert mounting("s3-config") == {"prepare", "s3"}
    assert mounting("secrets") == {"prepare", "airflow-api-server"}


def test_only_the_set_up_jobs_and_the_server_itself_are_given_the_s3_administrators_keys() -> None:
    assert given("S3_ADMIN_SECRET_ACCESS_KEY") == {*JOBS, "minio"}
    assert given("S3_MLFLOW_SECRET_ACCESS_KEY") == {"prepare", "mlflow"}


def test_the_keys_of_task_and_api_containers_are_with_what_starts_these_alone() -> None:
    for role in ("TRAINER", "API"):
        assert given(f"S3_{role}_SECRET_ACCESS_KEY") == {"prepare", "airflow-scheduler"}


def test_every_image_of_a_registry_is_pinned_by_its_digest() -> None:
    foreign = [s["image"] for s in SERVICES.values() if not s["image"].startswith("${AIRLOCK_IMAGE_")]
    assert len(foreign) == 1
    assert all("@sha256:" in image for image in foreign)

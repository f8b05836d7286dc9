"""What a container of a task or an API can reach: S3, MLflow, the front door, and nothing that gives it more."""

from __future__ import annotations

import json

import pytest

from tests.e2e.system import System, docker, images

# Runs inside a container of the trainer image on the network of tasks; prints what each address did.
REACH = """
import json, socket, ssl, sys
OPENING = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\4" + bytes(5)  # RFC 9113, section 3.4
def connect(host, port):
    try:
        socket.create_connection((host, port), 5).close()
        return "reached"
    except OSError as error:
        return type(error).__name__
def speaks_grpc(wrap):
    try:
        with wrap(socket.create_connection(("s3", 19000), 5)) as connection:
            connection.sendall(OPENING)
            return connection.recv(9)[3:4] == b"\\4"  # a frame of settings
    except OSError:
        return False
anyone = ssl.create_default_context()
anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
anyone.set_alpn_protocols(["h2"])
print(json.dumps({
    **{f"{host}:{port}": connect(host, port) for host, port in json.loads(sys.argv[1])},
    "grpc": speaks_grpc(lambda plain: plain) or speaks_grpc(anyone.wrap_socket),
}))
"""
OPEN = (("s3", 9000), ("mlflow", 5000), ("haproxy", 8000))
CLOSED = (("postgres", 5432), ("docker-gate", 2375))


@pytest.fixture(scope="module")
def reached(system: System) -> dict[str, object]:
    """What a container of the trainer image reached on the network of tasks."""
    run = ("run", "--rm", "--network", "airlock", "--entrypoint", "python", images()["TRAINER_DEFAULT"], "-c", REACH)
    answer: dict[str, object] = json.loads(docker(*run, json.dumps([*OPEN, *CLOSED])))
    return answer


@pytest.mark.parametrize(("host", "port"), OPEN)
def test_a_task_reaches_what_it_works_with(reached: dict[str, object], host: str, port: int) -> None:
    assert reached[f"{host}:{port}"] == "reached"


@pytest.mark.parametrize(("host", "port"), CLOSED)
def test_a_task_does_not_reach_the_database_and_the_docker_gate(
    reached: dict[str, object], host: str, port: int
) -> None:
    assert reached[f"{host}:{port}"] != "reached"


def test_nobody_gives_itself_rights_by_the_s3_servers_inner_port(reached: dict[str, object]) -> None:
    assert reached["grpc"] is False


@pytest.mark.parametrize("service", ["docker-gate", "haproxy"])
def test_the_sockets_of_docker_and_haproxy_are_on_no_volume_of_an_api_container(system: System, service: str) -> None:
    container, _ = system.containers("digits", "api")
    assert not system.mounted(container) & system.mounted(system.container_of(service))

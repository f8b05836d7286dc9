"""HAProxy for real: its configuration, its map, and what its clients see while both change."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest
import requests

from include.api_checks import Answer, RealHttp
from include.containers import remove
from include.haproxy_config import API_PORT
from include.haproxy_runtime import FrontDoorError
from include.releases import Colour
from tests.integration.docker_engine import network, wait_until
from tests.integration.front_door_parts import (
    RunningDoor,
    build_stub_api,
    clients,
    front_door,
    unique_project,
)

Start = Callable[[str, Colour, str], str]


@pytest.fixture(scope="module")
def door_network(docker_client: docker.APIClient) -> Iterator[str]:
    """A network as `airlock` is."""
    with network(docker_client) as name:
        yield name


@pytest.fixture
def project() -> str:
    """A project of this test alone."""
    return unique_project()


@pytest.fixture
def running(docker_client: docker.APIClient, door_network: str, tmp_path: Path, project: str) -> Iterator[RunningDoor]:
    """HAProxy for `project`."""
    with front_door(docker_client, door_network, tmp_path / "haproxy", frozenset({project})) as door:
        yield door


@pytest.fixture
def start(docker_client: docker.APIClient, door_network: str, running: RunningDoor) -> Iterator[Start]:
    """Starts a stand-in for the API on a colour, waits until HAProxy finds it well, and gives its container's id."""
    tag = build_stub_api(docker_client)
    with ExitStack() as stack:

        def begin(project: str, colour: Colour, run: str) -> str:
            environment = {"PROJECT": project, "RELEASE_ID": "r", "MLFLOW_RUN_ID": run, "IMAGE_ID": "i"}
            created = str(
                docker_client.create_container(
                    tag,
                    name=f"{project}-{colour}-1",
                    environment=environment,
                    host_config=docker_client.create_host_config(network_mode=door_network, init=True),
                )["Id"]
            )
            stack.callback(remove, docker_client, created)
            docker_client.start(created)
            address = docker_client.inspect_container(created)["NetworkSettings"]["Networks"][door_network]["IPAddress"]
            # HAProxy believes in a server with a new address until its first check: let that one succeed.
            wait_until(lambda: listens(address))
            wait_until(lambda: running.door.server(project, colour).address == address)
            wait_until(lambda: running.door.server(project, colour).up)
            return created

        yield begin


def listens(address: str) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex((address, API_PORT)) == 0


def problem(answer: Answer) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.body)
    assert found.keys() == {"type", "title", "status", "detail"}
    assert found["status"] == answer.status
    return found


def test_haproxy_accepts_the_rendered_configuration_of_twenty_projects(running: RunningDoor) -> None:
    running.door.configure(frozenset(f"project-{n}" for n in range(20)))
    assert "Configuration file is valid" in running.checked()


def test_unknown_and_unreleased_projects_are_told_apart(running: RunningDoor, project: str) -> None:
    unknown = RealHttp().post(f'{running.url}/no%22such"one/predict', b"x")
    assert (unknown.status, problem(unknown)["title"]) == (404, "Unknown project")
    unreleased = RealHttp().post(f"{running.url}/{project}/predict", b"x")
    assert unreleased.status == 503
    assert problem(unreleased)["detail"] == f"the project {project} has no released model yet"


def test_a_released_projects_path_loses_its_prefix(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, "blue")
    for asked, seen in {"/metadata": "/metadata", "/a/b?c=d": "/a/b?c=d", "/": "/", "": "/"}.items():
        answer = RealHttp().get(f"{running.url}/{project}{asked}")
        assert (answer.status, json.loads(answer.body)["path"]) == (200, seen)


def test_no_request_fails_while_traffic_moves_and_the_old_container_goes(
    running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    old = start(project, "blue", "a" * 32)
    running.door.route(project, "blue")
    with clients(running.url, project) as asked:
        wait_until(lambda: asked.runs["a" * 32] > 50)
        start(project, "green", "b" * 32)
        running.door.route(project, "green")
        wait_until(lambda: running.door.sessions(project, "blue") == 0)
        remove(docker_client, old)
        seen = asked.runs["b" * 32]
        wait_until(lambda: asked.runs["b" * 32] > seen + 100)
    assert asked.failures == []


def test_a_request_that_takes_long_counts_until_it_is_answered(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, "blue")
    answers: list[int] = []

    def ask() -> None:
        url = f"{running.url}/{project}/predict"
        answers.append(requests.post(url, data=b"x", headers={"X-Take-Seconds": "6"}, timeout=20).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: running.door.sessions(project, "blue") == 1)
    running.door.route(project, None)
    assert running.door.sessions(project, "blue") == 1
    thread.join()
    wait_until(lambda: running.door.sessions(project, "blue") == 0)
    assert answers == [200]


def test_a_new_project_gets_its_route_without_a_failed_request(
    running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, "blue")
    added = unique_project()
    with clients(running.url, project) as asked:
        wait_until(lambda: asked.runs["a" * 32] > 50)
        assert running.door.configure(frozenset({project, added}))
        seen = asked.runs["a" * 32]
        wait_until(lambda: asked.runs["a" * 32] > seen + 200)
    assert asked.failures == []
    assert RealHttp().get(f"{running.url}/{added}/health").status == 503
    assert not running.door.configure(frozenset({project, added})), "the same projects give the same file"


def test_a_client_kept_by_a_worker_from_before_a_reload_is_routed_anew_too(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    start(project, "green", "b" * 32)
    running.door.route(project, "blue")
    connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=10)

    def ask() -> str:
        connection.request("POST", f"/{project}/predict", b"x")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return str(json.loads(body)["run_id"])

    assert ask() == "a" * 32
    running.door.configure(frozenset({project, unique_project()}))
    running.door.route(project, "green")
    assert ask() == "b" * 32, "the idle connection's next request is still taken by the old worker"


def test_a_configuration_that_haproxy_refuses_is_taken_back(running: RunningDoor, project: str) -> None:
    former = (running.directory / "haproxy.cfg").read_text()
    with pytest.raises(FrontDoorError, match=r"did not take the new haproxy\.cfg"):
        running.door.configure(frozenset({project, "not a name"}))
    assert (running.directory / "haproxy.cfg").read_text() == former
    assert RealHttp().get(f"{running.url}/{project}/health").status == 503


def test_the_route_outlives_haproxys_death(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "green", "b" * 32)
    running.door.route(project, "green")
    running.restart()
    wait_until(lambda: running.door.server(project, "green").up)
    assert json.loads(RealHttp().get(f"{running.url}/{project}/metadata").body)["run_id"] == "b" * 32


def test_a_lost_or_wrong_map_file_is_made_whole_from_what_runs(running: RunningDoor, project: str) -> None:
    running.door.configure(frozenset({project, "other"}))
    running.door.route("other", "blue")
    (running.directory / "active.map").write_text(f"{project} {project}_green\n")
    running.door.route(project, "blue")
    assert (running.directory / "active.map").read_text() == f"other other_blue\n{project} {project}_blue\n"


def test_routes_are_made_what_the_records_say_and_nothing_else(running: RunningDoor, project: str) -> None:
    running.door.configure(frozenset({project, "gone"}))
    running.door.route("gone", "blue")
    running.door.route_all(lambda: {project: "green"})
    assert running.door.routed(project) == "green"
    assert running.door.routed("gone") is None
    assert (running.directory / "active.map").read_text() == f"{project} {project}_green\n"


def test_without_haproxy_the_error_names_its_socket(running: RunningDoor, project: str) -> None:
    running.client.kill(running.container_id)
    with pytest.raises(FrontDoorError, match=r"does not answer at .*admin\.sock"):
        running.door.route(project, "blue")

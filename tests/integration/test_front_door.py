"""HAProxy for real: its configuration, its map, and what its clients see while both change."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import docker
import pytest
import requests

from include.api_checks import Answer, RealHttp
from include.api_keys import ProjectKeys, entries, hashed
from include.containers import remove
from include.front_door import FrontDoor
from include.haproxy_config import API_PORT, IN_FLIGHT, INSIDE_PORT
from include.haproxy_runtime import FrontDoorError
from include.releases import Colour, Route, TurnLost
from tests.integration.docker_engine import address, network, wait_until
from tests.integration.front_door_parts import (
    RunningDoor,
    build_stub_api,
    clients,
    front_door,
    unique_project,
)

BEGINNING = datetime(2026, 11, 23, tzinfo=UTC)


class Start(Protocol):
    """Starts a stand-in for the API; gives its container's id."""

    def __call__(self, project: str, colour: Colour, run: str, number: int = 1) -> str: ...


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
    with front_door(docker_client, door_network, tmp_path / "haproxy", {project: 1}) as door:
        yield door


@pytest.fixture
def start(docker_client: docker.APIClient, door_network: str, running: RunningDoor) -> Iterator[Start]:
    """Starts a stand-in for the API on a colour, waits until HAProxy finds it well, and gives its container's id."""
    tag = build_stub_api(docker_client)
    with ExitStack() as stack:

        def begin(project: str, colour: Colour, run: str, number: int = 1) -> str:
            environment = {"PROJECT": project, "RELEASE_ID": "r", "MLFLOW_RUN_ID": run, "IMAGE_ID": "i"}
            created = str(
                docker_client.create_container(
                    tag,
                    name=f"{project}-{colour}-{number}",
                    environment=environment,
                    host_config=docker_client.create_host_config(network_mode=door_network, init=True),
                )["Id"]
            )
            stack.callback(remove, docker_client, created)
            docker_client.start(created)
            await_well(running, project, colour, number, created)
            return created

        yield begin


def await_well(running: RunningDoor, project: str, colour: Colour, number: int, container_id: str) -> None:
    """Wait until HAProxy knows a started container's address and its check has passed."""
    at = address(running.client, container_id)
    # HAProxy believes in a server with a new address until its first check: let that one succeed.
    wait_until(lambda: listens(at))
    wait_until(lambda: running.door.server(project, colour, number).address == at)
    wait_until(lambda: running.door.server(project, colour, number).up)


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
    running.configure({f"project-{n}": 2 for n in range(20)})
    assert "Configuration file is valid" in running.checked()


def test_unknown_and_unreleased_projects_are_told_apart(running: RunningDoor, project: str) -> None:
    unknown = RealHttp().post(f'{running.url}/no%22such"one/predict', b"x")
    assert (unknown.status, problem(unknown)["title"]) == (404, "Unknown project")
    none = RealHttp().get(f"{running.url}/")
    assert none.status == 404
    assert problem(none)["detail"] == "no project is at /; an address begins with one, as in /<project>/predict"
    unreleased = RealHttp().post(f"{running.url}/{project}/predict", b"x")
    assert unreleased.status == 503
    assert problem(unreleased)["detail"] == f"the project {project} has no released model yet"


def test_a_released_projects_path_loses_its_prefix(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    for asked, seen in {"/metadata": "/metadata", "/a/b?c=d": "/a/b?c=d", "/": "/"}.items():
        answer = RealHttp().get(f"{running.url}/{project}{asked}")
        assert (answer.status, json.loads(answer.body)["path"]) == (200, seen)


def test_a_path_without_its_last_slash_is_sent_to_the_page(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    answer = requests.get(f"{running.url}/{project}", allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (308, f"/{project}/")


def test_no_request_fails_while_traffic_moves_and_the_old_container_goes(
    running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    old = start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    with clients(running.url, project) as asked:
        wait_until(lambda: asked.runs["a" * 32] > 50)
        start(project, "green", "b" * 32)
        running.door.route(project, Route("green"))
        wait_until(lambda: running.door.sessions(project, "blue") == 0)
        remove(docker_client, old)
        seen = asked.runs["b" * 32]
        wait_until(lambda: asked.runs["b" * 32] > seen + 100)
    assert asked.failures == []


def test_a_request_that_takes_long_counts_until_it_is_answered(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
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


def test_what_is_more_than_the_replicas_take_is_refused_at_once_and_the_rest_is_answered(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    answers: list[requests.Response] = []

    def ask() -> None:
        headers = {"X-Take-Seconds": "4"}
        answers.append(requests.post(f"{running.url}/{project}/predict", data=b"x", headers=headers, timeout=20))

    threads = [threading.Thread(target=ask) for _ in range(IN_FLIGHT + 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [503] * 16 + [200] * IN_FLIGHT
    assert {answer.headers["Retry-After"] for answer in answers[:16]} == {"1"}
    assert {answer.headers["Content-Type"] for answer in answers[:16]} == {"application/problem+json"}


def test_a_new_project_gets_its_route_without_a_failed_request(
    running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    added = unique_project()
    with clients(running.url, project) as asked:
        wait_until(lambda: asked.runs["a" * 32] > 50)
        assert running.configure({project: 1, added: 1})
        seen = asked.runs["a" * 32]
        wait_until(lambda: asked.runs["a" * 32] > seen + 200)
    assert asked.failures == []
    assert RealHttp().get(f"{running.url}/{added}/health").status == 503
    assert not running.configure({project: 1, added: 1}), "the same projects give the same file"


def test_a_client_kept_by_a_worker_from_before_a_reload_is_routed_anew_too(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    start(project, "green", "b" * 32)
    running.door.route(project, Route("blue"))
    connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=10)

    def ask() -> str:
        connection.request("POST", f"/{project}/predict", b"x")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return str(json.loads(body)["run_id"])

    assert ask() == "a" * 32
    running.configure({project: 1, unique_project(): 1})
    running.door.route(project, Route("green"))
    assert ask() == "b" * 32, "the idle connection's next request is still taken by the old worker"


def test_a_configuration_that_haproxy_refuses_is_taken_back(running: RunningDoor, project: str) -> None:
    former = (running.directory / "haproxy.cfg").read_text()
    with pytest.raises(FrontDoorError, match=r"did not take the new haproxy\.cfg"):
        running.configure({project: 1, "not a name": 1})
    assert (running.directory / "haproxy.cfg").read_text() == former
    assert RealHttp().get(f"{running.url}/{project}/health").status == 503


def test_the_route_outlives_haproxys_death(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "green", "b" * 32)
    running.door.route(project, Route("green"))
    running.restart()
    wait_until(lambda: running.door.server(project, "green", 1).up)
    assert json.loads(RealHttp().get(f"{running.url}/{project}/metadata").body)["run_id"] == "b" * 32


def test_a_lost_or_wrong_map_file_is_made_whole_from_what_runs(running: RunningDoor, project: str) -> None:
    running.configure({project: 1, "other": 1})
    running.door.route("other", Route("blue"))
    (running.directory / "active.map").write_text(f"{project} {project}_green\n")
    running.door.route(project, Route("blue"))
    assert (running.directory / "active.map").read_text() == f"other other_blue\n{project} {project}_blue\n"


def test_routes_are_made_what_the_records_say_and_nothing_else(running: RunningDoor, project: str) -> None:
    running.configure({project: 1, "gone": 1})
    running.door.route("gone", Route("blue"))
    running.door.route_all(lambda: {project: Route("green")})
    assert running.door.routed(project) == Route("green")
    assert running.door.routed("gone") is None
    assert (running.directory / "active.map").read_text() == f"{project} {project}_green\n"


def test_without_haproxy_the_error_names_its_socket(running: RunningDoor, project: str) -> None:
    running.client.kill(running.container_id)
    with pytest.raises(FrontDoorError, match=r"does not answer at .*admin\.sock"):
        running.door.route(project, Route("blue"))


def asked_often(running: RunningDoor, project: str, times: int = 400) -> Counter[str]:
    """Who answers so many requests."""
    with requests.Session() as session:
        answers = [session.post(f"{running.url}/{project}/predict", data=b"x", timeout=10) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.json()["run_id"] for answer in answers)


def test_a_share_of_the_traffic_goes_to_the_other_colour(running: RunningDoor, project: str, start: Start) -> None:
    start(project, "blue", "a" * 32)
    start(project, "green", "b" * 32)
    for route, least, most in [
        (Route("blue", 25), 60, 140),
        (Route("blue", 0), 0, 0),
        (Route("green", 0), 400, 400),
        (Route("blue"), 0, 0),
    ]:
        running.door.route(project, route)
        assert running.door.routed(project) == route
        assert least <= asked_often(running, project)["b" * 32] <= most, route


def test_what_stands_by_takes_over_when_the_containers_on_trial_die(
    running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    start(project, "blue", "a" * 32)
    on_trial = start(project, "green", "b" * 32)
    running.door.route(project, Route("green", 0))
    with clients(running.url, project) as asked:
        wait_until(lambda: asked.runs["b" * 32] > 50)
        docker_client.kill(on_trial)
        wait_until(lambda: asked.runs["a" * 32] > 100)
    # What it was answering when it was killed cannot be asked again of a colour that has no other container.
    assert len(asked.failures) <= 8, asked.failures
    running.restart()
    assert running.door.routed(project) == Route("green", 0), "the share outlives HAProxy's death"


@pytest.mark.parametrize("body_bytes", [3200, 2**20], ids=["small", "1 MiB"])
def test_one_of_two_replicas_may_be_killed_at_any_time_without_a_failed_request(
    body_bytes: int, running: RunningDoor, project: str, start: Start, docker_client: docker.APIClient
) -> None:
    assert running.configure({project: 2})
    ids = {number: start(project, "blue", "a" * 32, number) for number in (1, 2)}
    running.door.route(project, Route("blue"))
    with clients(running.url, project, body_bytes=body_bytes) as asked:
        for number in (1, 2, 1):
            seen = asked.runs["a" * 32]
            wait_until(lambda seen=seen: asked.runs["a" * 32] > seen + 100)  # type: ignore[misc]
            docker_client.kill(ids[number])
            wait_until(lambda seen=seen: asked.runs["a" * 32] > seen + 300)  # type: ignore[misc]
            docker_client.start(ids[number])
            await_well(running, project, "blue", number, ids[number])
    assert asked.failures == [], running.log()
    # Counted when HAProxy is done with it, a moment after the client has its answer.
    wait_until(lambda: running.door.traffic(project, "blue").requests >= asked.runs.total())


def test_an_older_turn_has_no_effects_beside_a_later_one(tmp_path: Path) -> None:
    door = FrontDoor(tmp_path)
    assert door.last_turn("digits") == 0
    with door.fenced("digits", 7):
        pass
    assert door.last_turn("digits") == 7
    with pytest.raises(TurnLost, match="turn 7 after 6"), door.fenced("digits", 6):
        pytest.fail("it acts")
    with door.fenced("digits", 7):
        pass


def test_who_comes_from_outside_needs_a_key_of_the_project_once_it_is_published(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    other = unique_project()
    running.configure({project: 1, other: 1}, guarded=True)

    def ask(key: str | None, path: str = "predict") -> Answer:
        headers = {"X-API-Key": key} if key is not None else {}
        found = requests.post(f"{running.url}/{project}/{path}", data=b"x", headers=headers, timeout=10)
        return Answer(found.url, "POST", found.status_code, found.content, 0)

    known = {
        project: ProjectKeys().added("ann", "secret", BEGINNING),
        other: ProjectKeys().added("bob", "b", BEGINNING),
    }
    running.door.set_keys(lambda: entries(known))
    assert problem(ask(None))["title"] == "API key needed"
    assert [ask(key).status for key in ("", "wrong", "b", hashed("secret"))] == [401] * 4
    assert ask("secret").status == 200
    assert RealHttp().get(f"{running.url}/{project}/").status == 200, "the page asks for the key itself"
    inside = f"http://{running.address()}:{INSIDE_PORT}/{project}/predict"
    assert RealHttp().post(inside, b"x").status == 200, "who proves a release needs none"
    running.restart()
    wait_until(lambda: ask("secret").status == 200)
    running.door.set_keys(lambda: entries({project: known[project].revoked("ann")}))
    assert ask("secret").status == 401, "at once"
    running.configure({project: 1, other: 1})
    assert ask(None).status == 200, "on loopback alone"


def test_a_key_makes_so_many_requests_a_minute_and_no_other_key_pays_for_it(
    running: RunningDoor, project: str, start: Start
) -> None:
    start(project, "blue", "a" * 32)
    running.door.route(project, Route("blue"))
    running.configure({project: 1}, guarded=True, per_minute=20)
    keys = ProjectKeys().added("ann", "a", BEGINNING).added("bob", "b", BEGINNING)
    running.door.set_keys(lambda: entries({project: keys}))

    def ask(key: str) -> requests.Response:
        return requests.post(f"{running.url}/{project}/predict", data=b"x", headers={"X-API-Key": key}, timeout=10)

    answers = [ask("a") for _ in range(30)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 10
    assert answers[-1].headers["Retry-After"] == "10"
    assert ask("b").status_code == 200

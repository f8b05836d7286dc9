"""Which calls pass the gate, read from the raw request target."""

from __future__ import annotations

import json

import pytest
from docker_gate.calls import read_call
from docker_gate.refusal import Refused


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/_ping"),
        ("GET", "/v1.41/_ping"),
        ("GET", "/version"),
        ("GET", "/v1.41/info"),
        ("GET", "/v1.41/containers/json?limit=-1&all=1&size=0&trunc_cmd=0"),
        ("POST", "/v1.41/containers/create?name=digits-blue-1"),
        ("GET", "/v1.41/containers/abc/json"),
        ("GET", "/v1.41/containers/abc/logs?stderr=1&stdout=1&timestamps=1&follow=1&tail=all&since=12.5"),
        ("POST", "/v1.41/containers/abc/start"),
        ("POST", "/v1.41/containers/abc/stop?t=30"),
        ("POST", "/v1.41/containers/abc/kill?signal=SIGKILL"),
        ("POST", "/v1.41/containers/abc/wait"),
        ("DELETE", "/v1.41/containers/abc?v=True&link=False&force=True"),
        ("GET", "/v1.41/containers/abc/archive?path=%2Fresults%2Fresult.json"),
        ("GET", "/v1.41/images/airlock-trainer-default:1234/json"),
        ("GET", "/v1.52/images/sha256:1234/json"),
    ],
)
def test_a_call_that_airlock_makes_passes(method: str, target: str) -> None:
    assert read_call(method, target).method == method


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/containers/../images/json"),
        ("GET", "/containers/%2e%2e/images/json"),
        ("GET", "/containers/abc%2f..%2f..%2fimages/json"),
        ("GET", "//containers/json"),
        ("GET", "/v1.41//containers/json"),
        ("GET", "/containers/./json"),
        ("GET", "/containers/abc\\json"),
        ("GET", "http://docker/containers/json"),
        ("GET", "*"),
        ("GET", ""),
        ("GET", "/v1.24/containers/json"),
        ("GET", "/v2.0/containers/json"),
        ("GET", "/V1.41/containers/json"),
        ("GET", "/containers/json/"),
        ("get", "/containers/json"),
        ("POST", "/containers/json"),
        ("POST", "/containers/abc/exec"),
        ("POST", "/exec/abc/start"),
        ("POST", "/containers/abc/attach"),
        ("POST", "/containers/abc/update"),
        ("POST", "/containers/abc/rename?name=x"),
        ("POST", "/containers/abc/restart"),
        ("PUT", "/containers/abc/archive?path=/results"),
        ("GET", "/containers/abc/export"),
        ("POST", "/containers/prune"),
        ("GET", "/images/json"),
        ("POST", "/images/create?fromImage=evil"),
        ("POST", "/build"),
        ("DELETE", "/images/airlock-api"),
        ("GET", "/volumes"),
        ("POST", "/volumes/create"),
        ("GET", "/networks"),
        ("POST", "/networks/control/connect"),
        ("GET", "/events"),
        ("POST", "/session"),
        ("POST", "/swarm/init"),
        ("GET", "/system/df"),
        ("GET", "/containers/abc/archive"),
        ("GET", "/containers/abc/archive?path=/etc/shadow"),
        ("GET", "/containers/abc/archive?path=/results/../etc/shadow"),
        ("GET", "/containers/abc/archive?path=/results%2f..%2fetc"),
        ("GET", "/containers/abc/archive?path=/results&path=/etc"),
        ("GET", "/containers/abc/archive?path=/results/result.json%0a"),
        ("GET", "/containers/abc/logs?details=1"),
        ("GET", "/containers/abc/logs?tail=-5;x"),
        ("DELETE", "/containers/abc?link=1"),
        ("POST", "/containers/create?platform=linux/arm64"),
        ("GET", "/containers/json?filters=%7B%22label!%22%3A%5B%22airlock.managed%22%5D%7D"),
        ("GET", "/containers/json?filters=%7B%22label%22%3A%7B%22x%22%3Atrue%7D%7D"),
        ("GET", "/containers/json?filters=%7B%22label%22%3A%5B%5D%2C%22label%22%3A%5B%5D%7D"),
        ("GET", "/containers/json?%"),
    ],
)
def test_any_other_call_is_refused(method: str, target: str) -> None:
    with pytest.raises(Refused):
        read_call(method, target)


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("/containers/json", ["airlock.managed=true"]),
        ("/containers/json?all=1", ["airlock.managed=true"]),
        (
            "/containers/json?filters=%7B%22label%22%3A%5B%22airlock.role%3Dapi%22%5D%7D",
            ["airlock.role=api", "airlock.managed=true"],
        ),
    ],
)
def test_a_list_is_always_narrowed_to_containers_of_ours(target: str, labels: list[str]) -> None:
    assert json.loads(read_call("GET", target).query["filters"])["label"] == labels


def test_a_query_is_written_anew() -> None:
    assert read_call("DELETE", "/containers/abc?v=True&link=False&force=True").query == {"v": "1", "force": "1"}

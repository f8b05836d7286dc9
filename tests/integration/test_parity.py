"""What the API answers is what Ultralytics' own `predict` answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.trainer_container import IMAGE

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def compared(docker_client: docker.APIClient) -> Any:
    """The report of `parity_in_trainer.py`, run in the trainer image on the API's code, without a network."""
    code = {
        str(ROOT / "images/api/api"): "/api/api",
        str(Path(__file__).with_name("parity_in_trainer.py")): "/api/run.py",
    }
    created = docker_client.create_container(
        IMAGE,
        ["/api/run.py"],
        entrypoint=["python"],
        environment={"PYTHONPATH": "/opt/airlock:/api"},
        host_config=docker_client.create_host_config(
            binds=[f"{source}:{target}:ro" for source, target in code.items()], network_mode="none"
        ),
    )
    try:
        docker_client.start(created["Id"])
        code_of_exit = docker_client.wait(created["Id"])["StatusCode"]
        log = docker_client.logs(created["Id"]).decode()
        assert code_of_exit == 0, log
        return json.loads(log.splitlines()[-1])
    finally:
        docker_client.remove_container(created["Id"], force=True, v=True)


def test_probabilities_equal_ultralytics_predict_on_every_kind_of_picture(compared: Any) -> None:
    assert compared["spread"] > 0.05, "a model that answers all alike would prove nothing"
    assert {name: off for name, off in compared["probabilities"].items() if not off <= TOLERANCE} == {}


def test_the_network_is_given_the_same_pixels_to_the_bit(compared: Any) -> None:
    assert len(compared["inputs"]) >= 50
    assert {name: off for name, off in compared["inputs"].items() if off != 0} == {}

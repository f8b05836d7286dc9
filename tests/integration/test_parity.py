"""What the API answers is what Ultralytics' own `predict` answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.docker_engine import printed
from tests.integration.trainer_container import IMAGE

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def compared(docker_client: docker.APIClient) -> Any:
    """The report of `parity_in_trainer.py`, run in the trainer image on the API's code, without a network."""
    code = {
        str(ROOT / "images/api/api"): "/api/api:ro",
        str(ROOT / "tests/photograph.py"): "/api/tests/photograph.py:ro",
        str(Path(__file__).with_name("parity_in_trainer.py")): "/api/run.py:ro",
    }
    said = printed(docker_client, IMAGE, ["/api/run.py"], binds=code, path="/opt/airlock:/api")
    return json.loads(said.splitlines()[-1])


def test_probabilities_equal_ultralytics_predict_on_every_kind_of_picture(compared: Any) -> None:
    assert compared["spread"] > 0.05, "a model that answers all alike would prove nothing"
    assert {name: off for name, off in compared["probabilities"].items() if not off <= TOLERANCE} == {}


def test_the_network_is_given_the_same_pixels_to_the_bit(compared: Any) -> None:
    assert len(compared["inputs"]) >= 50
    assert {name: off for name, off in compared["inputs"].items() if off != 0} == {}

"""The words of make that stop and start everything."""

from __future__ import annotations

from tests.e2e.lab import pictures
from tests.e2e.system import System, docker, make, our_containers


def assert_serves_as(before: dict[str, object], system: System) -> None:
    """The demo's project serves what it served, and reads a digit."""
    after = system.metadata("digits")
    assert after == before
    assert system.predict("digits", pictures()[0].png).json()["label"] == pictures()[0].label


def test_after_down_and_up_what_served_serves_again_and_pools_are_as_they_were_set(system: System) -> None:
    before = system.metadata("digits")
    system.set_slots("gpu", 2)
    make("down")
    assert our_containers() == []
    printed = make("up")
    assert system.settings["AIRFLOW_ADMIN_PASSWORD"] in printed
    system.login()
    assert_serves_as(before, system)
    assert system.get("/pools/gpu")["slots"] == 2
    system.set_slots("gpu", 1)


def test_after_everything_was_killed_up_brings_back_what_served(system: System) -> None:
    before = system.metadata("digits")
    docker(
        "kill",
        *docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=airlock").split(),
        *system.containers("digits"),
    )
    make("up")
    system.login()
    assert_serves_as(before, system)

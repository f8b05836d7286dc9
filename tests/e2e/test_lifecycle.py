"""The words of make that stop and start everything."""

from __future__ import annotations

from tests.e2e.lab import pictures
from tests.e2e.system import System, docker, make


def test_after_down_and_up_what_served_serves_again(system: System) -> None:
    before = system.metadata("digits")
    make("down")
    for label in ("com.docker.compose.project=airlock", "airlock.managed=true"):
        assert docker("ps", "--all", "--quiet", "--filter", f"label={label}") == ""
    printed = make("up")
    assert system.settings["AIRFLOW_ADMIN_PASSWORD"] in printed
    system.login()
    after = system.metadata("digits")
    assert {**after, "served_since": None} == {**before, "served_since": None}
    assert system.predict("digits", pictures()[0].png).json()["label"] == pictures()[0].label

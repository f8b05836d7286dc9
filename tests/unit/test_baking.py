from __future__ import annotations

import math
import re
from datetime import timedelta

import pytest

from include import turns
from include.bake_limits import BakeLimits
from include.baking import Figures, judge, p99, watch
from include.candidates import DeployError
from include.deployment import deploy, promote, verify
from include.proving import NotProved
from include.releases import Route
from tests.simulation.reality import PROJECT, Fault, Reality, run_id, wish

LIMITS = BakeLimits(min_requests=100, max_error_share=0.01, max_p99_ratio=2.0)
OLD = Figures(10_000, 0, 0.050)


def judged(new: Figures, old: Figures | None = OLD, *, crashes: int = 0, ended: bool = True) -> str | None:
    return judge(new, old, LIMITS, crashes=crashes, ended=ended)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Figures(1000, 0, 0.060), None),
        (Figures(1000, 10, 0.060), None),
        (Figures(1000, 11, 0.060), r"11 of 1000 requests failed.*more than 1\.00%"),
        (Figures(1000, 0, 0.160), r"p99 160 ms: the limit is 150 ms; the release that served: .*p99 50 ms"),
        (Figures(50, 0, None), None),
        (Figures(0, 0, None), None),
        (Figures(3, 1, None), "1 of 3 requests failed"),
    ],
)
def test_a_release_is_measured_by_the_one_that_served(new: Figures, said: str | None) -> None:
    found = judged(new)
    if said is None:
        assert found is None
    else:
        assert re.search(said, found or "")


def test_errors_of_the_old_release_are_allowed_to_the_new_one() -> None:
    assert judged(Figures(1000, 50, None), Figures(1000, 45, None)) is None
    assert judged(Figures(1000, 60, None), Figures(1000, 45, None))


def test_a_first_release_is_measured_by_its_errors_alone() -> None:
    assert judged(Figures(1000, 0, 9.0), None) is None
    assert judged(Figures(1000, 500, 9.0), None)


def test_before_the_end_only_what_no_later_request_can_make_good_is_refused() -> None:
    assert judged(Figures(1, 1, None), ended=False) is None
    assert judged(Figures(2, 2, None), ended=False)


def test_a_crash_is_enough() -> None:
    assert "crashed 1 times" in (judged(Figures(10, 0, None), crashes=1) or "")


def test_the_p99_is_interpolated_in_its_bucket() -> None:
    assert p99({0.1: 0, 0.2: 100, math.inf: 100}) == pytest.approx(0.199)
    assert p99({0.1: 99, 0.2: 100, math.inf: 100}) == pytest.approx(0.1)
    assert p99({0.1: 50, math.inf: 100}) == 0.1, "no more than the last bound is known"


@pytest.mark.parametrize(
    ("fault", "said"),
    [("failing", "requests failed"), ("slow", "p99 990 ms"), ("crashing", "its containers crashed")],
)
def test_worse_under_traffic_gives_it_back_by_itself_with_the_figures(fault: Fault, said: str) -> None:
    reality = serving()
    reality.faults[run_id(2)] = fault
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    with pytest.raises(DeployError, match=rf"(?s){said}.*\(model version 1,"):
        verify(reality.world(), PROJECT, deployed.release_id)
    assert reality.serving_run() == run_id(1)
    assert reality.world().releases.state(PROJECT.name)[0].candidate is None


def test_a_slow_release_is_refused_though_the_one_that_served_was_stopped_by_hand() -> None:
    reality = serving()
    reality.faults[run_id(2)] = "slow"
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    for box in reality.alive("blue"):
        box.running = False
    with pytest.raises(DeployError, match=r"p99 990 ms.*the release that served: .*, p99 10 ms"):
        verify(reality.world(), PROJECT, deployed.release_id)
    assert reality.serving_run() == run_id(1)


def test_a_route_that_was_lost_during_the_trial_is_put_back_and_the_trial_begins_anew() -> None:
    reality = serving()
    reality.faults[run_id(2)] = "crashing"
    deploy(reality.world(), PROJECT, wish(2, 1))
    with turns.taken(reality.world(), PROJECT, wish(2, 1).airflow_run_id) as turn:
        reality.routes.clear()
        with pytest.raises(NotProved, match="crashed"):
            watch(turn, "green", PROJECT.bake.seconds)
    assert reality.routes[PROJECT.name] == Route("green", 0)


def remove_one_during_the_trial(reality: Reality) -> None:
    """A hand removes a container of the new release when the watch has begun."""

    def pass_time(seconds: float) -> None:
        reality.now += timedelta(seconds=seconds)
        del reality.boxes["digits-green-1"]
        reality.pass_time = None

    reality.pass_time = pass_time


@pytest.mark.parametrize("start_seconds", [0, 8])
def test_a_container_removed_during_the_trial_is_put_back_and_a_slow_release_refused(start_seconds: float) -> None:
    reality = serving()
    reality.start_seconds = start_seconds
    reality.faults[run_id(2)] = "slow"
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    remove_one_during_the_trial(reality)
    with pytest.raises(DeployError, match="p99 990 ms"):
        verify(reality.world(), PROJECT, deployed.release_id)
    assert reality.serving_run() == run_id(1)


@pytest.mark.parametrize("start_seconds", [0, 8])
def test_a_container_removed_during_the_trial_is_put_back_and_a_good_release_goes_on(start_seconds: float) -> None:
    reality = serving()
    reality.start_seconds = start_seconds
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    remove_one_during_the_trial(reality)
    verify(reality.world(), PROJECT, deployed.release_id)
    promote(reality.world(), PROJECT, deployed.release_id)
    assert len(reality.alive("green")) == PROJECT.replicas


def test_a_canary_gets_its_shares_one_after_the_other_and_the_old_one_stands_by() -> None:
    reality = serving()
    project = PROJECT.model_copy(update={"canary": (5, 25, 100), "canary_minutes": 2})
    routes: list[Route] = []

    def note() -> None:
        route = reality.routes[PROJECT.name]
        if route not in routes:
            routes.append(route)

    reality.watch = note
    deployed = deploy(reality.world(), project, wish(2, 1))
    began = reality.now
    verify(reality.world(), project, deployed.release_id)
    assert (reality.now - began).total_seconds() >= 2 * 120 + project.bake.seconds
    promote(reality.world(), project, deployed.release_id)
    assert routes == [Route("blue"), Route("blue", 5), Route("blue", 25), Route("green", 0), Route("green")]


def test_a_canary_that_fails_never_gets_more() -> None:
    reality = serving()
    reality.faults[run_id(2)] = "failing"
    project = PROJECT.model_copy(update={"canary": (5,), "canary_minutes": 1})
    deployed = deploy(reality.world(), project, wish(2, 1))
    reality.watch = lambda: shares.append(reality.routes[PROJECT.name].other_share)
    shares: list[int | None] = []
    with pytest.raises(DeployError):
        verify(reality.world(), project, deployed.release_id)
    assert set(shares) <= {5, None}
    assert reality.routes[PROJECT.name] == Route("blue")


def serving() -> Reality:
    """Version 1 serves."""
    reality = Reality()
    deployed = deploy(reality.world(), PROJECT, wish(1, None))
    verify(reality.world(), PROJECT, deployed.release_id)
    promote(reality.world(), PROJECT, deployed.release_id)
    return reality

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from include.candidates import DeployError
from include.deployment import ChampionChanged, deploy, promote, rollback, verify
from include.putting_back import reconcile
from include.registry import RegistryUnavailable
from include.releases import CANDIDATE_LASTS, ReleaseError
from include.turns import Busy
from tests.simulation.reality import NEVER_TRUSTED, PROJECT, Fault, Killed, Reality, run_id, wish

ABANDONED = CANDIDATE_LASTS + timedelta(seconds=PROJECT.trial_seconds + 1)


def containers(version: int, colour: str) -> set[str]:
    """The names of a release's containers."""
    return {f"digits-{colour}-{number}" for number in range(1, PROJECT.replicas + 1)}


class Death:
    """The process dies at its n-th point (None: it only counts them)."""

    def __init__(self, reality: Reality, at: int | None = None) -> None:
        self.points = 0
        self.at = at
        reality.point = self.pass_by

    def pass_by(self) -> None:
        self.points += 1
        if self.points == self.at:
            raise Killed


def survive(reality: Reality) -> None:
    """No more deaths."""
    reality.point = lambda: None


def release(reality: Reality, version: int, champion: int | None) -> None:
    """What a run's tasks do: `rollback` where one of the others fails, as in the DAG."""
    world = reality.world()
    try:
        deployed = deploy(world, PROJECT, wish(version, champion))
        verify(world, PROJECT, deployed.release_id)
    except DeployError as error:
        rollback(world, PROJECT, f"run-{version}", str(error))
        raise
    promote(world, PROJECT, deployed.release_id)


def serving(version: int) -> Reality:
    """A deployment in which this version was released."""
    reality = Reality()
    release(reality, version, None)
    reality.now += timedelta(hours=1)
    return reality


def settled(reality: Reality, version: int | None) -> None:
    """What must hold when nothing is under way: this version serves, is champion, and nothing is left over."""
    state, _ = reality.world().releases.state(PROJECT.name)
    champion = reality.world().releases.champion(PROJECT.name)
    assert state.candidate is None
    assert (champion.model_version if champion else None) == (str(version) if version else None)
    assert reality.champions.get(PROJECT.name) == (str(version) if version else None)
    assert reality.serving_run() == (run_id(version) if version else None)
    assert len(reality.boxes) == (PROJECT.replicas if version else 0)


def test_first_release_serves_and_is_champion() -> None:
    settled(serving(1), 1)


def test_second_release_takes_over_on_the_other_colour_and_the_old_container_goes() -> None:
    reality = serving(1)
    release(reality, 2, 1)
    settled(reality, 2)
    assert set(reality.boxes) == containers(2, "green")


def test_old_container_stays_and_champion_too_until_promote() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    assert reality.serving_run() == run_id(2)
    assert set(reality.boxes) == containers(1, "blue") | containers(2, "green")
    assert reality.champions[PROJECT.name] == "1"
    assert deployed.previous_release_id is not None


def test_a_container_that_never_gets_healthy_leaves_the_old_one_serving_and_says_what_was_asked() -> None:
    reality = serving(1)
    reality.faults[run_id(2)] = "unhealthy"
    with pytest.raises(DeployError) as caught:
        release(reality, 2, 1)
    settled(reality, 1)
    message = str(caught.value)
    assert "not healthy after 20 attempts" in message
    assert "GET http://digits-green-1:8000/health: no answer after 0.01 s (connection refused)" in message
    assert "last log lines of digits-green-1:\nlog of digits-green-1" in message
    assert "(model version 1," in message


def test_other_predictions_than_those_recorded_are_refused_before_any_traffic() -> None:
    reality = serving(1)
    reality.faults[run_id(2)] = "wrong"
    routes: list[str | None] = []
    reality.watch = lambda: routes.append(reality.serving_run())
    with pytest.raises(DeployError, match=r"golden picture a\.png has the probability"):
        release(reality, 2, 1)
    assert set(routes) == {run_id(1)}
    settled(reality, 1)


def test_a_container_that_serves_other_weights_than_released_is_refused() -> None:
    reality = serving(1)
    reality.faults[run_id(2)] = "impostor"
    with pytest.raises(DeployError, match=f"dvc_hash_onnx is '0{{32}}', expected '{2:032x}'"):
        release(reality, 2, 1)
    settled(reality, 1)


def test_a_failure_behind_the_front_door_moves_traffic_back_to_the_warm_old_one() -> None:
    reality = serving(1)
    reality.faults[run_id(2)] = "wrong behind the door"
    with pytest.raises(DeployError, match="http://front:8000/digits/predict"):
        release(reality, 2, 1)
    settled(reality, 1)
    state, _ = reality.world().releases.state(PROJECT.name)
    assert state.history[0].event == "rolled_back"


def test_a_first_release_that_fails_leaves_nothing_behind() -> None:
    reality = Reality(faults={run_id(1): "unhealthy"})
    with pytest.raises(DeployError, match="no release was promoted yet"):
        release(reality, 1, None)
    settled(reality, None)


def test_only_one_of_two_runs_gated_against_the_same_champion_is_released() -> None:
    reality = serving(1)
    first = deploy(reality.world(), PROJECT, wish(2, 1))
    with pytest.raises(Busy, match="run-2"):
        deploy(reality.world(), PROJECT, wish(3, 1))
    promote(reality.world(), PROJECT, first.release_id)
    with pytest.raises(ChampionChanged, match="compared with version 1, but version 2 serves now"):
        deploy(reality.world(), PROJECT, wish(3, 1))
    settled(reality, 2)


def test_a_candidate_left_by_a_dead_run_is_ended_by_the_next_deploy() -> None:
    reality = serving(1)
    deploy(reality.world(), PROJECT, wish(2, 1))
    reality.now += ABANDONED
    release(reality, 3, 1)
    settled(reality, 3)


def test_a_dead_runs_candidate_loses_the_traffic_even_where_the_next_deploy_is_refused() -> None:
    reality = serving(1)
    deploy(reality.world(), PROJECT, wish(2, 1))
    reality.now += ABANDONED
    with pytest.raises(ChampionChanged):
        deploy(reality.world(), PROJECT, wish(3, 2))
    settled(reality, 1)


def test_a_release_that_was_ended_meanwhile_cannot_be_promoted() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    rollback(reality.world(), PROJECT, "run-2", "by hand")
    for step in (verify, promote):
        with pytest.raises(ReleaseError, match=r"rolled back at .* \(by hand\)"):
            step(reality.world(), PROJECT, deployed.release_id)
    settled(reality, 1)


def test_rollback_of_a_run_that_tries_nothing_leaves_what_another_run_tries() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    words = rollback(reality.world(), PROJECT, "run-9", "its deploy was refused")
    assert words.startswith("nothing is left to roll back; release ")
    assert "(model version 1," in words
    promote(reality.world(), PROJECT, deployed.release_id)
    settled(reality, 2)


def test_rollback_of_a_run_whose_release_was_promoted_says_that_it_serves() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    reality.down.add("mlflow")
    with pytest.raises(RegistryUnavailable):
        promote(reality.world(), PROJECT, deployed.release_id)
    words = rollback(reality.world(), PROJECT, "run-2", "promote failed")
    assert words.startswith("not rolled back, since its release was promoted already; clear `promote` to end that; ")
    assert reality.serving_run() == run_id(2)
    reality.down.clear()
    promote(reality.world(), PROJECT, deployed.release_id)
    settled(reality, 2)


def test_the_old_container_answers_its_open_requests_before_it_goes() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    reality.open_requests["blue"] = 3

    def no_request_is_cut_off() -> None:
        assert containers(1, "blue") <= set(reality.boxes) or not reality.open_requests.get("blue")

    reality.watch = no_request_is_cut_off
    promote(reality.world(), PROJECT, deployed.release_id)
    settled(reality, 2)


def test_rollback_works_while_mlflow_is_down() -> None:
    reality = serving(1)
    deploy(reality.world(), PROJECT, wish(2, 1))
    reality.down.add("mlflow")
    rollback(reality.world(), PROJECT, "run-2", "verify failed")
    settled(reality, 1)


@pytest.mark.parametrize(
    "harm", ["container removed", "container stopped", "route lost", "alias lost", "stray container", "stray replica"]
)
def test_reconcile_puts_back_what_was_taken_by_hand(harm: str) -> None:
    reality = serving(1)
    box = reality.boxes["digits-blue-1"]
    if harm == "container removed":
        del reality.boxes["digits-blue-1"]
    elif harm == "container stopped":
        box.running = False
    elif harm == "route lost":
        reality.routes.clear()
    elif harm == "alias lost":
        reality.champions.clear()
    elif harm == "stray replica":
        reality.boxes["digits-blue-3"] = replace(box, number=3)
    else:
        reality.boxes["digits-green-1"] = replace(box, colour="green")
    reconcile(reality.world(), PROJECT, "reconcile")
    settled(reality, 1)


def test_reconcile_returns_when_what_it_started_answers_and_not_before() -> None:
    reality = serving(1)
    reality.boxes.clear()
    reality.start_seconds = 7
    reconcile(reality.world(), PROJECT, "reconcile")
    assert reality.world().http.get("http://front:8000/digits/health").status == 200


def test_reconcile_leaves_a_deploy_that_is_under_way() -> None:
    reality = serving(1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    reconcile(reality.world(), PROJECT, "reconcile")
    verify(reality.world(), PROJECT, deployed.release_id)
    promote(reality.world(), PROJECT, deployed.release_id)
    settled(reality, 2)


def test_reconcile_serves_again_before_it_complains_that_mlflow_is_down() -> None:
    reality = serving(1)
    reality.boxes.clear()
    reality.down.add("mlflow")
    with pytest.raises(RegistryUnavailable):
        reconcile(reality.world(), PROJECT, "reconcile")
    assert reality.serving_run() == run_id(1)


def test_a_champion_whose_version_was_deleted_in_mlflow_serves_on_and_is_succeeded() -> None:
    reality = serving(1)
    reality.champions.clear()
    reality.deleted_versions.add("1")
    assert "(model version 1," in reconcile(reality.world(), PROJECT, "reconcile")
    assert reality.serving_run() == run_id(1)
    release(reality, 2, 1)
    settled(reality, 2)


def elsewhere() -> Reality:
    """Version 1 served on another machine: its records are here, its container and its image are not."""
    reality = serving(1)
    reality.boxes.clear()
    reality.images = ["sha256:of-this-machine"]
    return reality


def test_what_served_on_another_machine_is_released_again_with_the_image_of_this_one() -> None:
    reality = elsewhere()
    before = reality.world().releases.champion(PROJECT.name)
    assert "(model version 1," in reconcile(reality.world(), PROJECT, "reconcile")
    settled(reality, 1)
    now = reality.world().releases.champion(PROJECT.name)
    assert before
    assert now
    assert (now.previous_release_id, now.api_image_id) == (before.release_id, "sha256:of-this-machine")


def test_a_reconcile_killed_while_it_releases_again_goes_on_at_the_next() -> None:
    reality = elsewhere()
    points = counted(reality, lambda: reconcile(reality.world(), PROJECT, "reconcile"))
    for point in range(1, points + 1):
        reality = elsewhere()
        Death(reality, point)
        with pytest.raises(Killed):
            reconcile(reality.world(), PROJECT, "reconcile")
        survive(reality)
        reconcile(reality.world(), PROJECT, "reconcile")
        settled(reality, 1)


def test_where_the_image_of_now_answers_otherwise_it_is_said_and_the_next_model_still_gets_in() -> None:
    reality = elsewhere()
    reality.faults[run_id(1)] = "wrong"
    with pytest.raises(
        DeployError, match=r"(?s)golden picture a\.png.*nothing serves digits: the API image sha256:api "
    ):
        reconcile(reality.world(), PROJECT, "reconcile")
    release(reality, 2, 1)
    settled(reality, 2)


def test_a_model_that_fails_where_what_served_is_gone_says_that_nothing_serves() -> None:
    reality = elsewhere()
    reality.faults[run_id(2)] = "unhealthy"
    with pytest.raises(DeployError, match="nothing serves digits: the API image sha256:api of release"):
        release(reality, 2, 1)
    assert reality.boxes == {}


SCENARIOS: dict[Fault | None, int] = {
    # what is wrong with version 2, and what serves when all is done
    None: 2,
    "unhealthy": 1,
    "wrong": 1,
    "wrong behind the door": 1,
    "failing": 1,
}


def counted(reality: Reality, step: Callable[[], object]) -> int:
    """At how many points a step may die."""
    death = Death(reality)
    step()
    survive(reality)
    assert death.points > 10
    return death.points


def serving_before(fault: Fault | None) -> Reality:
    """Version 1 serves, and version 2 has this fault."""
    reality = serving(1)
    if fault is not None:
        reality.faults[run_id(2)] = fault
    return reality


def crash_points(fault: Fault | None) -> int:
    reality = serving_before(fault)
    return counted(reality, lambda: attempt(reality))


def attempt(reality: Reality) -> None:
    with contextlib.suppress(DeployError, ReleaseError, ChampionChanged):
        release(reality, 2, 1)


def killed_at(fault: Fault | None, point: int) -> Reality:
    """Version 1 serves, and the process that releases version 2 dies at this point."""
    reality = serving_before(fault)
    Death(reality, point)
    reality.watch = lambda: one_that_was_proved_serves(reality)
    with pytest.raises(Killed):
        attempt(reality)
    survive(reality)
    return reality


def one_that_was_proved_serves(reality: Reality) -> None:
    assert reality.answering(), "a moment without a server"
    for box in reality.answering():
        assert reality.fault(box.record) not in NEVER_TRUSTED, "an unproved model serves"


@pytest.mark.parametrize("fault", SCENARIOS)
def test_killed_at_any_point_reconcile_ends_it(fault: Fault | None) -> None:
    for point in range(1, crash_points(fault) + 1):
        reality = killed_at(fault, point)
        reality.now += ABANDONED
        reconcile_regularly(reality)
        settled(reality, 2 if reality.serving_run() == run_id(2) else 1)


def reconcile_regularly(reality: Reality) -> None:
    """As `airlock__reconcile` does: after a pause a candidate has its whole time once more, and that ends too."""
    for _ in range(ABANDONED // timedelta(minutes=5) + 2):
        reconcile(reality.world(), PROJECT, "reconcile")
        reality.now += timedelta(minutes=5)


@pytest.mark.parametrize("fault", SCENARIOS)
def test_killed_at_any_point_the_steps_run_again_end_as_if_nothing_had_happened(fault: Fault | None) -> None:
    for point in range(1, crash_points(fault) + 1):
        reality = killed_at(fault, point)
        resume(reality)
        settled(reality, SCENARIOS[fault])


def resume(reality: Reality) -> None:
    """What Airflow does after the worker died: the step that was cut off runs again, then those after it."""
    world = reality.world()
    champion = world.releases.champion(PROJECT.name)
    if champion is not None and champion.run_id == run_id(2):
        promote(world, PROJECT, champion.release_id)  # cut off in promote, behind its first line
    else:
        attempt(reality)

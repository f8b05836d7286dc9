from __future__ import annotations

from datetime import timedelta

import pytest

from include.candidates import DeployError
from include.deployment import deploy, promote, verify
from include.putting_back import put_back, reconcile
from include.releases import CANDIDATE_LASTS, ReleaseError, TurnLost
from include.turns import Turn
from tests.simulation.reality import PROJECT, Killed, Reality, run_id, wish


def released(reality: Reality, *versions: int) -> list[str]:
    """Release these versions, one after the other; returns the releases."""
    releases, champion = [], None
    for version in versions:
        reality.now += timedelta(hours=1)
        deployed = deploy(reality.world(), PROJECT, wish(version, champion))
        verify(reality.world(), PROJECT, deployed.release_id)
        promote(reality.world(), PROJECT, deployed.release_id)
        releases.append(deployed.release_id)
        champion = version
    return releases


def back(reality: Reality, wanted: str | None = None) -> str:
    return put_back(reality.world(), PROJECT, wanted, "manual__1", "ann: too many nines")


def serves(reality: Reality, version: int) -> None:
    """This version serves, is champion, and nothing is left over."""
    state, _ = reality.world().releases.state(PROJECT.name)
    assert state.candidate is None
    assert {box.record.run_id for box in reality.boxes.values()} == {run_id(version)}
    assert reality.serving_run() == run_id(version)
    assert reality.champions[PROJECT.name] == str(version)


def test_the_one_before_is_put_back_with_its_record_and_why() -> None:
    reality = Reality()
    released(reality, 1, 2)
    assert "(model version 1," in back(reality)
    serves(reality, 1)
    state, _ = reality.world().releases.state(PROJECT.name)
    assert state.history[0].reason == "put back by ann: too many nines"


def test_a_second_time_undoes_the_first() -> None:
    reality = Reality()
    released(reality, 1, 2)
    back(reality)
    back(reality)
    serves(reality, 2)


def test_any_release_that_served_can_be_put_back_by_its_name() -> None:
    reality = Reality()
    first, _, _ = released(reality, 1, 2, 3)
    back(reality, first)
    serves(reality, 1)


def test_a_wrong_release_is_refused_with_those_there_are() -> None:
    reality = Reality()
    first, second = released(reality, 1, 2)
    with pytest.raises(ReleaseError, match=f"'v1' of digits cannot be put back; .*: {second}, {first}"):
        back(reality, "v1")
    serves(reality, 2)


def test_where_there_is_no_earlier_one_it_is_said() -> None:
    reality = Reality()
    released(reality, 1)
    with pytest.raises(ReleaseError, match="digits has no earlier release"):
        back(reality)
    serves(reality, 1)


def test_while_a_release_is_on_trial_what_served_gets_its_traffic_back_at_once() -> None:
    reality = Reality()
    released(reality, 1)
    on_trial = deploy(reality.world(), PROJECT, wish(2, 1)).release_id
    assert reality.serving_run() == run_id(2)
    began = reality.now
    back(reality)
    assert reality.now == began, "its containers stand by"
    serves(reality, 1)
    with pytest.raises(ReleaseError, match="put back by ann"):
        promote(reality.world(), PROJECT, on_trial)


def test_it_needs_no_mlflow_and_the_alias_follows_later() -> None:
    reality = Reality()
    released(reality, 1, 2)
    reality.down.add("mlflow")
    assert "(model version 1," in back(reality)
    assert reality.champions[PROJECT.name] == "2"
    reality.down.clear()
    reconcile(reality.world(), PROJECT, "reconcile")
    serves(reality, 1)


def test_an_earlier_release_that_answers_otherwise_now_is_refused_and_what_served_goes_on() -> None:
    reality = Reality()
    released(reality, 1, 2)
    reality.faults[run_id(1)] = "wrong"
    with pytest.raises(DeployError, match="golden picture"):
        back(reality)
    serves(reality, 2)


def test_a_release_whose_image_is_gone_is_released_again_with_the_image_of_now() -> None:
    reality = Reality()
    released(reality, 1, 2)
    reality.images = ["sha256:now"]
    back(reality)
    serves(reality, 1)
    assert {box.record.api_image_id for box in reality.boxes.values()} == {"sha256:now"}


def test_killed_at_any_point_reconcile_finishes_it() -> None:
    points = 0
    while True:
        reality = Reality()
        released(reality, 1, 2)
        points += 1
        left = iter(range(points))

        def die(left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Killed

        reality.point = die
        try:
            back(reality)
        except Killed:
            reality.point = lambda: None
            reconcile(reality.world(), PROJECT, "reconcile")
            serves(reality, 1 if reality.serving_run() == run_id(1) else 2)
        else:
            break
    assert points > 10


def test_after_the_machine_was_off_a_release_on_trial_has_its_whole_time_once_more() -> None:
    reality = Reality()
    released(reality, 1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    reality.now += CANDIDATE_LASTS + timedelta(hours=1)
    reconcile(reality.world(), PROJECT, "reconcile")
    verify(reality.world(), PROJECT, deployed.release_id)
    promote(reality.world(), PROJECT, deployed.release_id)
    serves(reality, 2)


def test_releases_that_served_outlive_any_number_of_failed_ones_in_the_history() -> None:
    reality = Reality()
    first, second = released(reality, 1, 2)
    state, _ = reality.world().releases.state(PROJECT.name)
    for number in range(200):
        state = state.started(f"20261123T170000000Z-v{number + 3}", reality.now)
        state = state.dropped(f"20261123T170000000Z-v{number + 3}", reality.now, "no better")
    assert state.promoted_ever() == (second, first)
    assert len(state.history) <= 60


def test_a_persons_word_takes_the_turn_from_a_release_that_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    reality = Reality()
    released(reality, 1)
    deployed = deploy(reality.world(), PROJECT, wish(2, 1))
    wait = Turn.wait

    def rolled_back_meanwhile(self: Turn, seconds: float) -> None:
        monkeypatch.setattr(Turn, "wait", wait)
        back(reality)
        wait(self, seconds)

    monkeypatch.setattr(Turn, "wait", rolled_back_meanwhile)
    with pytest.raises(TurnLost):
        verify(reality.world(), PROJECT, deployed.release_id)
    serves(reality, 1)

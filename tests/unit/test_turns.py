from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

import pytest

from include.releases import TurnLost
from include.turns import LEASE, PAUSE, Busy, Turn, taken
from tests.simulation.reality import PROJECT, Killed, Reality

SOON = timedelta(0)


def test_a_second_process_waits_for_the_turn_and_is_told_whose_it_is() -> None:
    reality = Reality()
    with (
        taken(reality.world(), PROJECT, "run-1"),
        pytest.raises(Busy, match=r"run-1 is acting on digits until 17:0\d"),
        taken_by(reality, "run-2"),
    ):
        pytest.fail("two have the turn")
    with taken_by(reality, "run-2") as turn:
        turn.write(lambda state: state)


def test_a_killed_ones_turn_is_over_with_its_lease_and_its_own_retry_need_not_wait() -> None:
    reality = Reality()
    killed_in_its_turn(reality)
    with taken_by(reality, "run-1"):
        pass
    killed_in_its_turn(reality)
    began = reality.now
    with taken(reality.world(), PROJECT, "run-2"):
        assert reality.now - began >= LEASE


def test_who_lost_the_turn_neither_writes_nor_acts() -> None:
    reality = Reality()
    late = killed_in_its_turn(reality)
    with taken(reality.world(), PROJECT, "run-2", seize=True):
        with pytest.raises(TurnLost):
            late.write(lambda state: state)
        with pytest.raises(TurnLost), late.effect():
            pytest.fail("it acts beside the later turn")


def test_a_turn_is_kept_as_long_as_its_process_goes_on() -> None:
    reality = Reality()
    with taken(reality.world(), PROJECT, "run-1") as turn:
        for _ in range(10):
            turn.wait(LEASE.total_seconds() / 2)
            with pytest.raises(Busy), taken_by(reality, "run-2"):
                pytest.fail("two have the turn")


def test_turns_go_on_where_records_were_put_back_from_before_the_front_doors_last() -> None:
    reality = Reality()
    with taken_by(reality, "run-1"):
        pass
    reality.objects.clear()
    with taken_by(reality, "run-2") as turn, turn.effect():
        assert reality.turns[PROJECT.name] == 2


def test_a_pause_of_all_deployers_is_seen() -> None:
    reality = Reality()
    with taken_by(reality, "run-1") as first:
        assert not first.after_a_pause
    reality.now += timedelta(minutes=5)
    with taken_by(reality, "reconcile") as soon:
        assert not soon.after_a_pause
    reality.now += PAUSE + timedelta(seconds=1)
    with taken_by(reality, "reconcile") as late:
        assert late.after_a_pause


def taken_by(reality: Reality, holder: str) -> AbstractContextManager[Turn]:
    """A turn that nobody waits for."""
    return taken(reality.world(), PROJECT, holder, patience=SOON)


def killed_in_its_turn(reality: Reality) -> Turn:
    with pytest.raises(Killed), taken_by(reality, "run-1") as turn:
        raise Killed
    return turn

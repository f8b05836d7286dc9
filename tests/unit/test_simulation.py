"""A few of the histories of `make simulate`, and that it would see what it looks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import include.putting_back
from include import candidates, reconciling
from include.turns import Turn
from tests.simulation.history import play
from tests.simulation.reality import _Door

HISTORIES = 300


def broken(histories: int = HISTORIES) -> set[str]:
    """What was broken in the first so many histories, without the numbers."""
    return {outcome.broken for seed in range(histories) if (outcome := play(seed)).broken}


def test_no_history_is_broken() -> None:
    assert broken() == set()


def test_a_history_is_the_same_again() -> None:
    assert play(7).log == play(7).log


def test_effects_that_are_not_fenced_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def open_to_all(self: _Door, project: str, number: int) -> Iterator[None]:
        yield

    monkeypatch.setattr(_Door, "fenced", open_to_all)
    with pytest.raises(AssertionError):
        assert broken(2000) == set()


@pytest.mark.parametrize("left_out", ["proof", "end of what was left", "alias"])
def test_a_step_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    if left_out == "proof":
        monkeypatch.setattr(candidates, "prove", lambda turn, record: None)
    elif left_out == "end of what was left":
        monkeypatch.setattr(include.putting_back, "_end_what_was_left", lambda turn: None)
    else:
        monkeypatch.setattr(include.putting_back, "crown", lambda world, project, state: None)
    assert broken()


def test_a_route_that_moves_before_its_containers_are_warm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "prove", lambda turn, record: None)
    monkeypatch.setattr(reconciling, "wait_until_up", lambda turn, colour, seconds, least: True)
    assert "a moment without a server" in broken()


def test_a_turn_that_is_not_kept_is_no_danger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "keep", lambda self: None)
    assert broken() == set()

"""No bad model gets in, of more than fifty; a naive script serves most of them."""

from __future__ import annotations

import pytest

from tests.mutants import Mutant, good, mutants, naive_script_serves, refusal

ALL = list(mutants())


def test_the_good_one_serves() -> None:
    assert refusal(good()) is None
    assert naive_script_serves(good())


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_bad_model_is_refused(mutant: Mutant) -> None:
    assert refusal(mutant)


def test_there_are_more_than_fifty_and_a_naive_script_serves_half_of_them() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL) > 50
    assert sum(map(naive_script_serves, ALL)) > len(ALL) / 2

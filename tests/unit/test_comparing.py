"""What is new, gone and changed between two states of a dataset."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from trainer import directory
from trainer.catalogue import Diff
from trainer.comparing import compare

State = dict[str, str]
states = st.dictionaries(st.text(st.sampled_from('ab/ü"\\'), max_size=3), st.sampled_from(["1" * 32, "2" * 32]))


def encoded(state: State) -> bytes:
    return directory.encode((md5, path) for path, md5 in sorted(state.items()))


def assert_every_path_counts_once(now: State, before: State) -> None:
    unchanged, diff = compare(encoded(now), encoded(before))
    assert unchanged == [before.get(path) == md5 for path, md5 in sorted(now.items())]
    assert diff == Diff(
        added=len(now.keys() - before.keys()),
        removed=len(before.keys() - now.keys()),
        changed=sum(before[path] != now[path] for path in now.keys() & before.keys()),
    )


@given(now=states, before=states)
def test_every_path_of_either_state_counts_once(now: State, before: State) -> None:
    assert_every_path_counts_once(now, before)


@given(rate=st.sampled_from([0.0, 0.001, 0.01, 0.5, 1.0]), seed=st.integers())
def test_long_stretches_in_common_are_counted_as_their_files(rate: float, seed: int) -> None:
    chance = random.Random(seed)
    before = {f'cat/{"x" * chance.randrange(40)}"{{{number:05d}': "0" * 32 for number in range(2_000)}
    now = dict(before)
    for path in before:
        if chance.random() < rate:
            change = chance.randrange(3)
            if change == 0:
                del now[path]
            elif change == 1:
                now[path] = "1" * 32
            else:
                now[path + "+"] = "2" * 32
    assert_every_path_counts_once(now, before)

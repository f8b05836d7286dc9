"""What is new, gone and changed between two states of a dataset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trainer.catalogue import Diff
from trainer.comparing import compare

states = st.dictionaries(st.text(st.sampled_from("ab/ü"), max_size=3), st.sampled_from(["1", "2"]))


def files(state: dict[str, str]) -> list[tuple[str, str]]:
    return [(md5, path) for path, md5 in sorted(state.items())]


@given(now=states, before=states)
def test_every_path_of_either_state_counts_once(now: dict[str, str], before: dict[str, str]) -> None:
    unchanged, diff = compare(files(now), files(before))
    assert unchanged == [before.get(path) == md5 for md5, path in files(now)]
    assert diff == Diff(
        added=len(now.keys() - before.keys()),
        removed=len(before.keys() - now.keys()),
        changed=sum(before[path] != now[path] for path in now.keys() & before.keys()),
    )

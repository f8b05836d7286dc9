"""The keys that no checkout can hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.errors import DataError
from trainer.keys import impossible, refuse


@pytest.mark.parametrize(
    "key",
    ["../x.png", "a/../x.png", "/etc/passwd", "a//b.png", "a/./b.png", "a\\b.png", "a\x00.png", "a\nb.png", "a\ufffd"],
)
def test_a_key_that_no_checkout_can_hold_is_refused_by_name(key: str) -> None:
    with pytest.raises(DataError) as refused:
        refuse("pets", impossible(["cat/1.png", key]))
    assert repr(key) in str(refused.value)
    assert "cat/1.png" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat/A.png", "cat/a.png"), ("Cat/1.png", "cat/2.png"), ("c\u00e4t/1", "ca\u0308t/1"), ("cat", "cat/1.png")],
    ids=["files", "folders", "ways to write an umlaut", "file and folder"],
)
def test_names_that_collide_on_some_file_systems_are_refused(one: str, other: str) -> None:
    assert len(impossible([one, other])) == 1


@pytest.mark.parametrize(
    "key", ["plain/a-b_c.1.png", "a b/c d.png", "größe/ß.png", '😀/it\'s "so".png', "a/100%25?#&+[x].png", "a/..b..png"]
)
def test_unusual_names_are_fine(key: str) -> None:
    assert impossible([key]) == []


def test_many_refused_keys_are_counted_and_the_first_ten_named() -> None:
    with pytest.raises(DataError, match="holds 25 objects") as refused:
        refuse("pets", impossible([f"../{n:02}" for n in range(25)]))
    assert "'../09'" in str(refused.value)
    assert "'../10'" not in str(refused.value)
    assert "15 more" in str(refused.value)


@given(names=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=127), min_size=1, max_size=12), max_size=8))
def test_the_quick_look_at_plain_keys_misses_none_that_the_long_one_finds(names: list[str]) -> None:
    keys = sorted(set(names))
    # A key with an umlaut makes the long look necessary, and is itself fine.
    assert impossible(keys) == [problem for problem in impossible([*keys, "ümläut.png"]) if "ümläut" not in problem]

"""The listing's digest and the keys that no checkout can hold."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.errors import DataError
from trainer.listing import Row, digest, impossible, refuse

rows = st.lists(st.builds(Row, st.text(), st.text("0123456789abcdef-"), st.integers(1, 10)), unique_by=lambda r: r.key)


@given(rows=rows)
def test_the_digest_is_the_contracts(rows: list[Row]) -> None:
    in_key_order = sorted(rows, key=lambda row: row.key.encode("utf-8", "surrogatepass"))
    text = "".join(f"{key}\0{etag}\0{size}\n" for key, etag, size in in_key_order)
    assert digest(rows) == hashlib.sha256(text.encode()).hexdigest()


ONE = Row("cat/1.png", "a" * 32, 5)
TWO = Row("cat/2.png", "b" * 32, 5)


@pytest.mark.parametrize(
    "after",
    [
        [ONE, TWO, Row("dog/1.png", "c" * 32, 1)],
        [ONE],
        [ONE, TWO._replace(etag="d" * 32)],
        [ONE, TWO._replace(key="dog/2.png")],
    ],
    ids=["added", "deleted", "overwritten", "renamed"],
)
def test_adds_deletes_overwrites_and_renames_change_the_digest(after: list[Row]) -> None:
    assert digest(after) != digest([ONE, TWO])


def test_folder_markers_do_not_change_the_digest() -> None:
    assert digest([ONE, Row("cat", "", 0), Row("dog", "d41d8cd98f00b204e9800998ecf8427e", 0)]) == digest([ONE])


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
    "key", ["a b/c d.png", "größe/ß.png", '😀/it\'s "so".png', "a/100%25?#&+[x].png", "a/..b..png"]
)
def test_unusual_names_are_fine(key: str) -> None:
    assert impossible([key]) == []


def test_many_refused_keys_are_counted_and_the_first_ten_named() -> None:
    with pytest.raises(DataError, match="holds 25 objects") as refused:
        refuse("pets", impossible(f"../{n:02}" for n in range(25)))
    assert "'../09'" in str(refused.value)
    assert "'../10'" not in str(refused.value)
    assert "15 more" in str(refused.value)

"""The listing's digest."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.listing import Row, digest

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

"""DVC's directory object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.directory import Cursor, Entry, decode, encode, name_of, pointer

md5s = st.text("0123456789abcdef", min_size=32, max_size=32)
entries = st.lists(st.builds(Entry, md5s, st.text()), unique_by=lambda entry: entry.relpath)


@given(entries=entries)
def test_the_encoding_is_what_json_makes_of_the_sorted_list_as_dvc_does(entries: list[Entry]) -> None:
    rows = sorted(({"md5": md5, "relpath": relpath} for md5, relpath in entries), key=lambda row: row["relpath"])
    assert encode(sorted(entries, key=itemgetter(1))) == json.dumps(rows, sort_keys=True).encode()


@given(entries=entries)
def test_decoding_gives_the_entries_back(entries: list[Entry]) -> None:
    assert sorted(decode(encode(entries))) == sorted(entries)


def scan(content: bytes) -> Iterator[Entry]:
    cursor = Cursor(content)
    while cursor.entry:
        yield cursor.entry
        cursor.advance()


@given(entries=entries)
def test_scanning_gives_the_files_in_the_order_of_their_paths(entries: list[Entry]) -> None:
    in_order = sorted(entries, key=itemgetter(1))
    assert list(scan(encode(in_order))) == in_order


@pytest.mark.parametrize("cut", [1, 40, 70, 100])
def test_half_a_directory_object_is_not_scanned_as_a_whole(cut: int) -> None:
    content = encode([("a" * 32, "cat/1.png"), ("b" * 32, "cat/2.png")])
    with pytest.raises(ValueError, match="not what is written here"):
        list(scan(content[:-cut]))


def test_a_directory_object_in_another_order_is_not_scanned() -> None:
    with pytest.raises(ValueError, match="not in the order"):
        list(scan(encode([("a" * 32, "cat/2.png"), ("b" * 32, "cat/1.png")])))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"md5": "x", "relpath": "a"}]', b'[{"md5": "x"}]', b"[[]]"])
def test_what_is_no_directory_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(content)


def test_an_md5_of_digits_stays_text_in_the_pointer() -> None:
    assert "md5: '01234567890123456789012345678901.dir'" in pointer("01234567890123456789012345678901.dir", "digits")


def test_the_name_is_the_md5_of_the_bytes() -> None:
    assert name_of(b"[]") == "d751713988987e9331980363e24189ce.dir"

"""The keys that no checkout can hold."""

from __future__ import annotations

import tempfile
from itertools import accumulate
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.errors import DataError
from trainer.keys import impossible, refuse


@pytest.mark.parametrize(
    "key",
    [
        *(
            "../x.png",
            "a/../x.png",
            "/etc/passwd",
            "a//b.png",
            "a/./b.png",
            "a\\b.png",
            "a\x00.png",
            "a\nb.png",
            "a\ufffd",
        ),
        *(".git/config", "cat/.git", "cat/.dvc/config", ".dvcignore", "ümläut/.dvcignore", ".hg/x", "cat/.GIT/config"),
    ],
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
    "key",
    [
        "plain/a-b_c.1.png",
        "a b/c d.png",
        "größe/ß.png",
        '😀/it\'s "so".png',
        "a/100%25?#&+[x].png",
        "a/..b..png",
        ".gitignore",
    ],
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


# Such as are alike, or become alike, or cannot be written at all; and any other.
names = st.sampled_from(
    [
        *(
            "a",
            "A",
            "ss",
            "\u00df",
            "\u1e9e",
            "fi",
            "\ufb01",
            "k",
            "\u212a",
            "\u00e9",
            "e\u0301",
            "E\u0301",
            "\u0130",
            "i\u0307",
        ),
        *(
            "\u03ac\u03b9",
            "\u1fb4",
            "\u03b1\u0345\u0301",
            "\u01f0",
            "J\u030c",
            ".",
            "..",
            ".git",
            ".dvc",
            ".b",
            " ",
            "a ",
        ),
        *(
            "",
            "n" * 255,
            "n" * 256,
            "\u00fc" * 128,
            "\x7f",
            "\ufffd",
            "\u200b",
            "\ue000",
            "\U0001f600",
            "-",
            "~",
            "*",
            "\\",
        ),
    ]
) | st.text(max_size=8)
some_keys = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=12, unique=True)


@given(keys=some_keys)
def test_what_is_not_refused_can_be_written_and_read_back_and_no_two_are_alike(keys: list[str]) -> None:
    kept: list[str] = []
    for key in keys:
        if not impossible(sorted([*kept, key])):
            kept.append(key)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for key in kept:
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(key)
        there = [path for path in root.rglob("*") if path.is_file()]
        assert {path.relative_to(root).as_posix(): path.read_text() for path in there} == {key: key for key in kept}
    every = {folder for key in kept for folder in accumulate(key.split("/"), "{}/{}".format)}
    assert len({normalize("NFC", normalize("NFC", each).casefold()) for each in every}) == len(every)


@given(keys=some_keys)
def test_whether_keys_are_refused_does_not_depend_on_their_order(keys: list[str]) -> None:
    assert bool(impossible(sorted(keys))) == bool(impossible(sorted(keys, reverse=True)))

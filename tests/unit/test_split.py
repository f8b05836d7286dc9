"""The split of a dataset survives growth: what was trained on never validates later."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.directory import Entry
from trainer.split import Division, divide


def md5(content: str) -> str:
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


def flat(*paths: str) -> list[Entry]:
    """Entries whose content is their file name, so that equal names are equal pictures."""
    return [Entry(md5(path.rpartition("/")[2]), path) for path in paths]


def train_md5s(division: Division) -> set[str]:
    return {sample.md5 for sample in division.train}


def val_md5s(division: Division) -> set[str]:
    return {sample.md5 for sample in division.val}


# Few names in few classes, so that duplicates and label conflicts are common.
files = st.sets(
    st.builds("{}/{}/{}".format, st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 30)), max_size=60
)
# Small ones mostly: there it is the rank in the class that counts.
shares = st.sampled_from([0.0, 0.1, 0.2, 0.5]) | st.floats(0, 1)


@given(before=files, added=files, share=shares)
def test_no_picture_moves_from_train_into_val_while_files_are_only_added(
    before: set[str], added: set[str], share: float
) -> None:
    old = divide(flat(*before), "flat", share)
    new = divide(flat(*before | added), "flat", share)
    assert not train_md5s(old) & val_md5s(new)


@given(paths=files, share=shares)
def test_no_picture_is_on_both_sides_and_every_file_is_accounted_for_once(paths: set[str], share: float) -> None:
    division = divide(flat(*paths), "flat", share)
    assert not train_md5s(division) & val_md5s(division)
    named = [s.relpath for s in (*division.train, *division.val)]
    named += [e.relpath for e in (*division.duplicates, *division.conflicts, *division.misplaced)]
    assert sorted(named) == sorted(paths)


def grown(content: int, copy: str, label: int) -> str:
    return f"{'ab'[(content + label) % 2]}/{copy}/{content}"


# Few contents, so that a later step repeats some: as a duplicate, or now and then under another label.
growth = st.lists(
    st.lists(
        st.builds(grown, st.integers(0, 30), st.sampled_from("xy"), st.sampled_from([0, 0, 0, 0, 1])),
        min_size=4,
        max_size=12,
    ),
    min_size=2,
    max_size=6,
)


@given(steps=growth, new_class=st.integers(0, 5), bad=st.sets(st.integers(0, 30), max_size=5), share=shares)
def test_what_was_ever_trained_on_never_validates_however_a_dataset_grows(
    steps: list[list[str]], new_class: int, bad: set[int], share: float
) -> None:
    bad_md5s = {md5(str(content)) for content in bad}  # left out before the division, as pictures that do not decode
    held: set[str] = set()
    trained: set[str] = set()
    for number, added in enumerate(steps):
        held |= set(added) | ({f"new/z/{n}" for n in range(100, 112)} if number >= new_class else set())
        division = divide([entry for entry in flat(*held) if entry.md5 not in bad_md5s], "flat", share)
        trained |= train_md5s(division)
        assert not trained & val_md5s(division)


@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), st.integers(10, 30), min_size=1),
    copies=st.integers(0, 5),
    seed=st.integers(0, 1000),
    share=st.floats(0, 0.5),
)
def test_every_class_has_pictures_to_validate_with_from_ten_up_and_duplicates_take_none_away(
    sizes: dict[str, int], copies: int, seed: int, share: float
) -> None:
    paths = [f"{label}/{seed}-{label}-{n}" for label, size in sizes.items() for n in range(size)]
    paths += [f"{label}/copies/{seed}-{label}-{n}" for label in sizes for n in range(copies)]
    division = divide(flat(*paths), "flat", share)
    for label in sizes:
        assert sum(sample.label == label for sample in division.val) >= 2


def test_a_picture_that_validated_and_gets_a_second_label_is_left_out_and_none_takes_its_place() -> None:
    names = sorted((str(n) for n in range(12)), key=md5)
    before = divide(flat(*(f"cat/{name}" for name in names)), "flat", 0.0)
    assert [sample.md5 for sample in sorted(before.val)] == [md5(name) for name in names[:2]]
    after = divide(flat(*(f"cat/{name}" for name in names), f"dog/{names[0]}"), "flat", 0.0)
    assert [sample.md5 for sample in after.val] == [md5(names[1])]
    assert train_md5s(after) == train_md5s(before)
    assert {each.relpath for each in after.conflicts} == {f"cat/{names[0]}", f"dog/{names[0]}"}
    # Preflight then says that the class has none: better than one that was trained on.
    without = divide(flat(*(f"cat/{name}" for name in names), *(f"dog/{name}" for name in names[:2])), "flat", 0.0)
    assert not without.val


split_files = st.sets(
    st.builds("{}/{}/{}".format, st.sampled_from(["train", "val"]), st.sampled_from("abc"), st.integers(0, 20)),
    max_size=40,
)


@given(paths=split_files, share=shares)
def test_an_existing_split_is_kept_and_val_wins(paths: set[str], share: float) -> None:
    division = divide(flat(*paths), "split", share)
    assert not train_md5s(division) & val_md5s(division)
    assert all(sample.relpath.startswith("val/") for sample in division.val)
    assert all(sample.relpath.startswith("train/") for sample in division.train)
    in_val = {md5(path.rpartition("/")[2]) for path in paths if path.startswith("val/")}
    assert not in_val & train_md5s(division)


@given(size=st.integers(2, 40), seed=st.integers(0, 1000))
def test_every_class_of_two_has_validation_pictures_at_any_share(size: int, seed: int) -> None:
    division = divide(flat(*(f"a/{seed}-{n}" for n in range(size))), "flat", 0.0)
    assert len(division.val) == 2


def test_about_the_asked_share_validates() -> None:
    division = divide(flat(*(f"a/{n}" for n in range(2000))), "flat", 0.2)
    assert len(division.val) == pytest.approx(400, rel=0.1)


def test_the_same_picture_under_two_labels_is_left_out_under_both_and_says_so() -> None:
    division = divide(flat("cat/1", "cat/2", "cat/3", "dog/1", "dog/4"), "flat", 0.2)
    assert {each.relpath for each in division.conflicts} == {"cat/1", "dog/1"}
    assert all("cat, dog" in each.cause for each in division.conflicts)
    assert md5("1") not in train_md5s(division) | val_md5s(division)


def test_exact_duplicates_in_a_class_count_once() -> None:
    division = divide(flat("cat/1", "cat/copies/1", "cat/2"), "flat", 0.2)
    assert [(each.relpath, each.cause) for each in division.duplicates] == [
        ("cat/copies/1", "the same picture as cat/1")
    ]
    assert len(division.val) == 2


def test_files_outside_of_a_class_are_named_with_the_cause() -> None:
    division = divide(flat("README.md", "cat/.DS_Store", "cat/1"), "flat", 0.2)
    assert {each.relpath: each.cause for each in division.misplaced} == {
        "README.md": "not in a class folder",
        "cat/.DS_Store": "a hidden file",
    }
